"""What the documents show runs as it stands there, and what they name is there."""

import dataclasses
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import pytest
import yaml

from a3cjax.agents import ALGORITHMS
from a3cjax.commands import VERBS
from a3cjax.config.settings import Config
from a3cjax.video import recording
from tests.cases import for_each
from tests.documented_commands import WrongCommandError, check_command, check_text_settings
from tests.documents import (
    ROOT,
    Block,
    load_hook,
    pages,
    read_blocks,
    read_commands,
    read_paths,
    read_text_commands,
    read_text_settings,
)

NOT_CODE = {"", "text"}  # diagrams and output
DATA: dict[str, Callable[[str], Any]] = {
    "yaml": yaml.safe_load,
    "json": json.loads,
    "toml": tomllib.loads,
}
SETTING_NAMES = [*(field.name for field in dataclasses.fields(Config)), "preset"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_python(blocks: Iterable[Block], folder: Path) -> dict[str, Any]:
    """Runs the Python of a page in one namespace; a block with a title becomes a file."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.language != "python":
            continue
        # As many empty lines before it as in the page: a traceback then names its line.
        code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
        if block.title:
            (folder / block.title).write_text(block.code)
            importlib.invalidate_caches()
        else:
            exec(code, names)
    return names


def check_blocks(blocks: Iterable[Block]) -> None:
    """Checks the blocks of a page that are not Python."""
    for block in blocks:
        if block.language == "sh":
            for command in read_commands(block):
                check_command(command)
        elif block.language in DATA:
            DATA[block.language](block.code)
        else:
            where = f"{block.page}:{block.line}"
            is_known = block.language in {"python", *NOT_CODE}
            assert is_known, f"{where}: language {block.language} is not tested."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where examples run, beside the results; what they register and import is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.setattr(recording, "FILM_SECONDS", 2.0)  # of the films at the end of runs
    modules = set(sys.modules)
    algorithms, environments = dict(ALGORITHMS), dict(gymnasium.registry)
    yield tmp_path
    ALGORITHMS.clear()
    ALGORITHMS.update(algorithms)
    gymnasium.registry.clear()
    gymnasium.registry.update(environments)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def check_readme(names: dict[str, Any]) -> None:
    assert bool(jnp.all(jnp.isfinite(names["params"]["policy"])))
    assert bool(jnp.any(names["params"]["policy"] != 0))
    assert names["metrics"].entropy > 0


def check_algorithms(names: dict[str, Any]) -> None:
    # Random play has a mean of -0.6.
    assert names["summary"].evaluation.mean > 0.3


# What must hold after a page's code has run, beyond its own asserts.
AFTERWARDS = {"README.md": check_readme, "docs/algorithms.md": check_algorithms}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_what_a_page_shows_works(page, folder):
    blocks = read_blocks(page)
    names = run_python(blocks, folder)
    AFTERWARDS.get(name_of(page), lambda names: None)(names)
    check_blocks(blocks)
    for command in read_text_commands(page):
        check_command(command)
    for settings in read_text_settings(page):
        check_text_settings(settings, SETTING_NAMES)


@for_each(
    ("text", "message"),
    [
        ("```sh\na3cjax train env=Pong unrol_length=5\n```", "unroll_length"),
        ("```sh\npython experiments/run.py discount=1.5\n```", "discount must be between"),
        ("```sh\npython -m a3cjax train env=Pnog\n```", "Pnog"),
        ("```sh\na3cjax train preset=papre\n```", "preset must be one of"),
        ("```sh\na3cjax train seed=1,2\n```", "seed must be a whole number"),
        ("```sh\na3cjax trian env=Pong\n```", "no verb trian"),
        ("```sh\na3cjax sweep sed=1,2\n```", "nearest: seed"),
        ("```sh\nmake atari5 env=Pong,Brekout\n```", "nearest: Breakout"),
        ("```sh\nmake control env=CartPol\n```", "got CartPol"),
        ("```sh\na3cjax sweep env=Pong seed=1,-2\n```", "seed must be"),
        ("```sh\na3cjax evaluate runs/x greedily=true\n```", "nearest: greedy"),
        ("```sh\na3cjax evaluate nothing num_episodes=3\n```", "no run folder.* nothing"),
        ("```sh\na3cjax evaluate pong num_episodes=0\n```", "must be >= 1"),
        ("```sh\na3cjax report results/nothing\n```", "there is no results/nothing"),
        ("```sh\npython experiments/nothing.py\n```", "there is no experiments/nothing.py"),
        ("```sh\npython -m a3cjax.nothing\n```", "a3cjax.nothing"),
        ("```sh\npython docs/hooks/settings_page.py --fast\n```", "takes no arguments"),
        ("```sh\npython benchmarks/learning.py --minutes 3\n```", "--minutes"),
        ("```sh\nmake trian env=Pong\n```", "trian"),
        ("```sh\nmake train env=Pong sede=3\n```", "sede"),
        ("```sh\npip install -e '.[everything]'\n```", "no extra everything"),
        ("```sh\npip install 'jax[abacus]'\n```", "JAX has no extra abacus"),
        ("```sh\nrm -rf runs\n```", "nothing here can check it"),
        ("```sh\n# a comment\nmake test\nmake \\\n    trian\n```", "trian"),
        ("```bahs\nmake test\n```", "language bahs is not tested"),
        ("```yaml\nenv: [Pong\n```", "while parsing"),
    ],
)
def test_wrong_block_is_noticed(text, message):
    with pytest.raises((AssertionError, yaml.YAMLError), match=message):
        check_blocks(read_blocks(Path("page.md"), text))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lambda_": "2"}, "lambda_ must be"), ({"preset": "papre"}, "papre")],
)
def test_wrong_setting_in_a_text_is_noticed(settings, message):
    with pytest.raises(WrongCommandError, match=message):
        check_text_settings(settings, SETTING_NAMES)


def test_open_fence_is_noticed():
    with pytest.raises(AssertionError, match="must close every fence"):
        read_blocks(Path("page.md"), "```sh\nmake test\n")


def test_failing_python_is_noticed_with_its_line(folder):
    text = "# A page\n\n```python\nx = 1\n```\n\nThen:\n\n```python\nassert x == 2\n```\n"
    with pytest.raises(AssertionError) as failure:
        run_python(read_blocks(Path("page.md"), text), folder)
    assert failure.traceback[-1].lineno + 1 == 10
    assert str(failure.traceback[-1].path).endswith("page.md")


def test_block_with_a_title_is_a_file_that_later_ones_import(folder):
    text = '```python title="my_numbers.py"\nx = 3\n```\n```python\nfrom my_numbers import x\n```\n'
    assert run_python(read_blocks(Path("page.md"), text), folder)["x"] == 3


PAGES_THAT_NAME_TESTS = ["fidelity.md", "reliability.md", "faq.md", "how-a3c-works.md"]


@for_each("page", PAGES_THAT_NAME_TESTS)
def test_every_test_that_is_named_exists(page):
    named = re.findall(r"(test_\w+)\.py(?:::(test_\w+)(…?))?", (ROOT / "docs" / page).read_text())
    assert named
    for file, function, rest in named:
        (path,) = (ROOT / "tests").rglob(f"{file}.py")
        if function:
            assert re.search(
                rf"^def {function}{'' if rest else '[(]'}", path.read_text(), re.MULTILINE
            )


TO_BE_WRITTEN = {ROOT / "a3cjax/agents/mellowmax_q.py"}  # by the reader of docs/algorithms.md


@for_each("page", pages())
def test_every_path_that_is_named_or_linked_exists(page):
    missing = {path for path in read_paths(page) if not path.exists()}
    assert missing <= TO_BE_WRITTEN


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == version


@for_each("path", sorted((ROOT / ".github").rglob("*.yml")))
def test_forms_and_workflows_can_be_read(path):
    content = yaml.safe_load(path.read_text())
    if path.parent.name == "workflows":
        for job in content["jobs"].values():
            for step in job["steps"]:
                if step.get("run", "").startswith("make "):
                    check_command(step["run"])
    elif path.name != "config.yml":
        assert content.keys() >= {"name", "description", "body"}


class TestSettingsPage:
    page = load_hook("settings_page")

    def test_tables_are_those_of_the_declarations(self):
        text = self.page.PAGE.read_text()
        assert text == self.page.refresh(text), "run python docs/hooks/settings_page.py"

    def test_every_verb_is_there_with_its_settings(self):
        tables = {table["name"] for table in self.page.TABLE.finditer(self.page.PAGE.read_text())}
        assert tables == {*VERBS, "words"}
        rows = [row for row in self.page.verb_table("train") if row.startswith("| `")]
        names = [row.split("`")[1] for row in rows]
        assert names == ["preset", *(field.name for field in dataclasses.fields(Config))]

    @pytest.mark.parametrize(
        ("name", "row"),
        [
            ("value_cost", "| `value_cost` | `0.5` | number, >= 0 | weight of the value loss |"),
            ("seed", "| `seed` | `1` | whole number, 0 to 20,000 | of the environments,"),
            ("decay", "| `decay` | `null` | number, >= 0 and &lt; 1; `null` | of squared"),
            ("unroll_length", "| `auto` | whole number, >= 1; `auto`; `episode` | steps of"),
            ("protocol", "| `paper` | `paper`, `machado` | of Atari games;"),
            ("run_dir", "| `null` | path; `null` | folder of the run; null: runs/&lt;env>/"),
        ],
    )
    def test_a_row_says_what_a_setting_can_be(self, name, row):
        (line,) = [r for r in self.page.verb_table("train") if r.startswith(f"| `{name}` |")]
        assert row in line


class TestFidelityLinks:
    links = load_hook("fidelity_links")

    def test_lines_are_where_the_code_is_now(self):
        text = self.links.PAGE.read_text()
        assert text == self.links.refresh(text), "run python docs/hooks/fidelity_links.py"

    def test_every_row_leads_to_a_line_that_has_what_it_names(self):
        rows = [r for r in self.links.PAGE.read_text().splitlines() if r.startswith("| ")]
        rows = [row.split(" | ") for row in rows if not row.startswith("| detail")]
        assert len(rows) > 40
        for cells in rows:
            found = list(self.links.LINK.finditer(cells[3]))
            assert found, f"{cells[0]} leads nowhere"
            for link in found:
                lines = (self.links.PAGE.parent / link["path"]).read_text().splitlines()
                name = link["symbol"].partition("=")[0].rpartition(".")[2]
                assert re.search(rf"\b{name}\b", lines[int(link["line"]) - 1]), link[0]

    @pytest.mark.parametrize(
        ("symbol", "line"),
        [
            ("make", 6),
            ("Class.method", 4),
            ("Class.field=40000", 3),
            ("Class.field=5", None),
            ("make.inner", 7),
            ("inner", 7),
            ("CONSTANT=3", 1),
            ("method.field", None),
            ("nothing", None),
        ],
    )
    def test_symbol_is_found_in_code(self, tmp_path, symbol, line):
        path = tmp_path / "file.py"
        path.write_text(
            "CONSTANT = 3\nclass Class:\n    field: int = setting(40_000, 'a text')\n"
            "    def method(self): ...\n\ndef make():\n    def inner(): ...\n"
        )
        assert self.links.find_line(path, symbol) == line

    def test_symbol_is_found_in_a_preset_with_its_value(self, tmp_path):
        path = tmp_path / "file.yaml"
        path.write_text("# seed: 2\nlambda_: 1.0\nseed: 3  # why\n")
        assert self.links.find_line(path, "seed") == 3
        assert self.links.find_line(path, "seed=3") == 3
        assert self.links.find_line(path, "seed=2") is None

    def test_symbol_that_moved_is_followed_and_one_that_is_gone_is_told(self):
        moved = "[`n_step_returns`](../a3cjax/nowhere.py#L1)"
        assert "(../a3cjax/returns.py#L" in self.links.refresh(moved)
        with pytest.raises(LookupError, match=r"no_such_thing must be defined by one file"):
            self.links.refresh("[`no_such_thing`](../a3cjax/returns.py#L1)")
