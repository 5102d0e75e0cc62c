"""The README's code runs as it stands there."""

import re
from pathlib import Path

import jax.numpy as jnp

README = Path(__file__).parent.parent / "README.md"


def test_readme_example_runs_and_changes_the_policy():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    assert bool(jnp.all(jnp.isfinite(names["params"]["policy"])))
    assert bool(jnp.any(names["params"]["policy"] != 0))
    assert names["metrics"].entropy > 0
