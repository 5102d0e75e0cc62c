"""The examples do what they promise."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a3c_put_together_by_hand_solves_catch(capsys):
    score = runpy.run_path(str(EXAMPLES / "a3c.py"))["main"]()
    assert score >= 0.95  # of 1; at random −0.6
    assert f"mean return of 200 new games {score:+.2f}" in capsys.readouterr().out
