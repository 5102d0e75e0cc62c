"""Dependencies point one way: no import goes against the arrows of the design."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "a3cjax"

# Each part of the pure layer and what it may import; `agents` stands for all its files.
ARROWS = {
    "types": set(),
    "returns": {"types"},
    "distributions": {"types"},
    "losses": {"types", "distributions"},
    "convolutions": {"types"},
    "networks": {"types", "convolutions", "distributions"},
    "agents": {"types", "returns", "distributions", "losses", "networks"},
    "optimizers": {"types"},
    "updates": {"types", "agents", "optimizers"},
}
ABOVE_THE_HOST_BORDER = {"__init__", *ARROWS}
# Frameworks of environments, settings and files, which the pure layer knows nothing of.
HOST_PACKAGES = {
    *("envpool", "gymnasium", "hydra", "omegaconf", "yaml", "orbax", "tensorboardX", "rich"),
    *("matplotlib", "threading", "queue", "logging", "time", "os", "pathlib"),
}
# The config is taken apart here; everything else receives plain arguments.
READERS_OF_CONFIG = {
    *("training", "run", "builders", "defaults", "evaluation", "run_folder"),
    *("measuring", "doctor", "pretrained", "model_cards"),
}

FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = FILES + sorted((ROOT / "experiments").rglob("*.py"))


def part_of(path):
    """`returns` for a3cjax/returns.py, `agents` for anything in a3cjax/agents/."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports_of(path):
    """Every (module, name) imported anywhere in a file, inside functions, too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from ((module, alias.name) for alias in node.names)


def parts_imported_by(path):
    """The parts of a3cjax that a file imports."""
    for module, name in imports_of(path):
        package, *rest = module.split(".")
        if package == "a3cjax":
            yield rest[0] if rest else name or "__init__"


def packages_imported_by(path):
    return {module.split(".")[0] for module, _ in imports_of(path)}


def relative_name(path):
    return str(path.relative_to(ROOT))


def pure_files():
    return [path for path in FILES if part_of(path) in ABOVE_THE_HOST_BORDER]


def test_every_part_of_the_pure_layer_is_there():
    # A module that is renamed would otherwise drop out of the tests below.
    assert {part_of(path) for path in FILES} >= ABOVE_THE_HOST_BORDER


@pytest.mark.parametrize("path", pure_files(), ids=relative_name)
def test_pure_layer_imports_along_the_arrows_only(path):
    part = part_of(path)
    # `a3cjax.load` imports `pretrained` when it is called; test_public_api.py shows that
    # importing the package does not.
    exports = {"distributions", "losses", "returns", "pretrained"}
    allowed = exports if part == "__init__" else ARROWS[part]
    assert set(parts_imported_by(path)) - {part} <= allowed


@pytest.mark.parametrize("path", pure_files(), ids=relative_name)
def test_pure_layer_imports_nothing_of_the_host(path):
    assert not packages_imported_by(path) & HOST_PACKAGES


def test_no_part_imports_itself_by_a_detour():
    graph = {}
    for path in FILES:
        part = part_of(path)
        graph.setdefault(part, set()).update(set(parts_imported_by(path)) - {part})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_envs_is_the_only_importer_of_envpool():
    importers = [relative_name(p) for p in ALL_FILES if "envpool" in packages_imported_by(p)]
    assert importers == ["a3cjax/envs.py"]


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_config_is_seen_by_the_program_only(path):
    if part_of(path) in READERS_OF_CONFIG:
        return
    from_config = {name for module, name in imports_of(path) if module == "a3cjax.config"}
    # envs.py reports a wrong name of an environment as what it is to the user.
    assert from_config <= ({"ConfigError"} if part_of(path) == "envs" else set())
    assert ("a3cjax", "config") not in set(imports_of(path))


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_package_does_not_import_hydra_or_the_experiments(path):
    assert not packages_imported_by(path) & {"hydra", "experiments", "tests", "benchmarks"}


@pytest.mark.parametrize("path", pure_files(), ids=relative_name)
def test_jit_is_applied_at_the_border_only(path):
    if part_of(path) == "updates":
        return
    attributes = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    names = {name for _, name in imports_of(path)}
    assert "jit" not in attributes | names
