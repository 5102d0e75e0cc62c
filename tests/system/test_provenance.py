import subprocess

import jax
import pytest

from a3cjax.system import compilation, machine, provenance
from tests.cases import for_each


@for_each(
    ("content", "cores"),
    [("max 100000", 8), ("400000 100000", 4), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_containers_share_of_the_cores_counts(monkeypatch, tmp_path, content, cores):
    monkeypatch.setattr(machine, "cores_of_thread", lambda: set(range(8)))
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    assert machine.available_cores() == 8
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert machine.available_cores() == cores


def test_versions_name_what_is_installed():
    versions = provenance.describe_versions()
    assert versions["jax"] == jax.__version__
    assert set(provenance.PACKAGES) < set(versions)


def test_missing_packages_are_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.describe_versions()["no-such-package"] == "not installed"


@for_each(
    ("program", "told"),
    [
        ("/home/someone/a3cjax/experiments/run.py", "python experiments/run.py"),
        ("/home/someone/.venv/bin/a3cjax", "a3cjax"),
        ("/home/someone/a3cjax/__main__.py", "a3cjax"),
        ("/usr/lib/pytest/__main__.py", "python pytest/__main__.py"),
    ],
)
def test_command_is_told_without_the_folders_of_this_machine(monkeypatch, program, told):
    monkeypatch.setattr("sys.argv", [program, "env=Pong"])
    assert provenance.describe_command() == f"{told} env=Pong"


def test_command_can_be_pasted_into_a_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiments/run.py", "run_dir=my runs/1"])
    assert provenance.describe_command() == "python experiments/run.py 'run_dir=my runs/1'"


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """Runs git where a copy of this package lies, in no commit yet."""
    module = tmp_path / "site-packages" / "a3cjax" / "system" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(module))

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
        subprocess.run([*command, *arguments], check=True)

    git("init", "-q")
    return git


def test_commit_of_a_checkout_around_an_installed_package_is_not_taken(checkout):
    checkout("commit", "-q", "--allow-empty", "-m", "x")
    assert provenance.describe_commit() == "unknown"


def test_commit_tells_whether_the_package_differs_from_it(checkout, tmp_path):
    checkout("add", ".")
    checkout("commit", "-q", "-m", "x")
    (tmp_path / "README.md").write_text("beside the package")
    commit = provenance.describe_commit()
    assert len(commit) == 40
    (tmp_path / "site-packages" / "a3cjax" / "new.py").write_text("")
    assert provenance.describe_commit() == commit + "+changes"


def test_commit_is_unknown_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "a3cjax" / "system" / "provenance.py")
    )
    assert provenance.describe_commit() == "unknown"


def test_compiled_programs_lie_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation.compilation_cache_dir()
    assert folder is not None
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "a3cjax")
    assert compilation.compilation_cache_dir() == folder


def test_compiled_programs_of_another_jaxlib_lie_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation.compilation_cache_dir()
    monkeypatch.setattr(compilation, "describe_versions", lambda: {"jaxlib": "0.0.1"})
    assert compilation.compilation_cache_dir() != folder


def test_no_cache_where_no_folder_can_be_made(monkeypatch, tmp_path):
    (tmp_path / "a3cjax").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.compilation_cache_dir() is None
