import jax

from a3cjax import provenance


def test_this_process_may_use_a_core():
    assert provenance.available_cores() >= 1


def test_versions_name_what_is_installed():
    versions = provenance.describe_versions()
    assert versions["jax"] == jax.__version__
    assert set(provenance.PACKAGES) < set(versions)


def test_missing_packages_are_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.describe_versions()["no-such-package"] == "not installed"


def test_command_is_told_without_the_folders_of_this_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/a3cjax/experiments/run.py", "env=Pong"])
    assert provenance.describe_command() == "python experiments/run.py env=Pong"


def test_commit_is_unknown_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "a3cjax" / "provenance.py"))
    assert provenance.describe_commit() == "unknown"
