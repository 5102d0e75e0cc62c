"""The README's code runs as it stands there."""

import re
from pathlib import Path

import jax.numpy as jnp

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def find_example(word):
    """The Python block of the README with this word in it."""
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (example,) = (example for example in examples if word in example)
    return example


def run(example):
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    return names


def test_readme_example_runs_and_changes_the_policy():
    names = run(find_example("actor_critic_loss"))
    assert bool(jnp.all(jnp.isfinite(names["params"]["policy"])))
    assert bool(jnp.any(names["params"]["policy"] != 0))
    assert names["metrics"].entropy > 0


def test_weights_that_the_readme_loads_play_pong(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    example = find_example("a3cjax.load")
    run(example.replace("num_episodes=30", "num_episodes=1"))
    assert float(capsys.readouterr().out) >= 10  # of 21; the worst of 30 games had 17
