"""The main promise of the README, kept by the default settings."""

import pytest

from a3cjax.config.settings import Config
from a3cjax.training.run import train


@pytest.mark.slow
def test_default_settings_learn_pong(tmp_path):
    # The best score is 21. About 15 minutes on two cores.
    summary = train(Config(env="Pong", seed=4, video=False, run_dir=str(tmp_path / "run")))
    assert summary.evaluation is not None
    assert summary.evaluation.mean >= 18
