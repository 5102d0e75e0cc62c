"""What the documents show runs as it stands there."""

import re
from pathlib import Path

import pytest

from a3cjax.agents import ALGORITHMS, Algorithm
from a3cjax.config import Config
from a3cjax.training import train

DOCS = Path(__file__).parent.parent / "docs"


def test_worked_example_of_an_algorithm_learns_catch(tmp_path, monkeypatch):
    new_file, registration = re.findall(
        r"```python\n(.*?)```", (DOCS / "algorithms.md").read_text(), flags=re.DOTALL
    )
    names: dict = {}
    exec(compile(new_file, "mellowmax_q.py", "exec"), names)
    monkeypatch.setitem(ALGORITHMS, "mellowmax_q", None)  # taken out again after the test
    exec(registration, {**names, "ALGORITHMS": ALGORITHMS, "Algorithm": Algorithm})
    config = Config(
        algorithm="mellowmax_q",
        env="Catch",
        total_frames=40_000,
        num_actors=1,
        unroll_length=10,
        warmup_steps=8,
        exploration_frames=10_000,
        target_period_frames=1_000,
        eval_episodes=50,
        video=False,
        run_dir=str(tmp_path / "run"),
    )
    summary = train(config)
    assert summary.evaluation is not None
    # Random play has a mean of -0.6.
    assert summary.evaluation.mean > 0.3


@pytest.mark.parametrize("document", ["fidelity.md", "reliability.md"])
def test_every_test_that_is_named_exists(document):
    named = re.findall(r"(test_\w+)\.py(?:::(test_\w+)(…?))?", (DOCS / document).read_text())
    assert len(named) > 10
    for file, function, rest in named:
        (path,) = (DOCS.parent / "tests").rglob(f"{file}.py")
        if function:
            assert re.search(
                rf"^def {function}{'' if rest else '[(]'}", path.read_text(), re.MULTILINE
            )
