"""Dependencies point one way: no import goes against the arrows of the design."""

import ast
import graphlib
import tomllib
from pathlib import Path

from tests.cases import for_each

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "a3cjax"

# Each part of the pure layer and what it may import; `agents` stands for all its files.
ARROWS = {
    "types": set(),
    "errors": set(),
    "exploration": {"types"},
    "returns": {"types"},
    "distributions": {"types"},
    "losses": {"types", "distributions"},
    "convolutions": {"types"},
    "torsos": {"types", "convolutions"},
    "cores": {"types"},
    "networks": {"types", "distributions", "torsos", "cores"},
    "agents": {"types", "returns", "distributions", "losses", "networks"},
    "optimizers": {"types"},
    "updates": {"types", "agents", "optimizers"},
}
ABOVE_THE_HOST_BORDER = {"__init__", *ARROWS}
MOST_FILES = 14  # that lie directly in the package: what it is about, at a glance
# Frameworks of environments, settings and files, which the pure layer knows nothing of.
HOST_PACKAGES = {
    *("envpool", "gymnasium", "hydra", "omegaconf", "yaml", "safetensors", "tensorboardX", "rich"),
    *("matplotlib", "threading", "queue", "logging", "time", "os", "pathlib"),
    *("jinja2", "markupsafe", "PIL", "wandb", "mlflow", "optuna", "ray"),
}
# The config is taken apart here; everything else receives plain arguments.
READERS_OF_CONFIG = {"config", "runs", "training", "video", "commands", "cluster"}
# Folders that make up the program; `agents` is mathematics.

FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = [
    *FILES,
    *sorted(path for name in ("experiments", "examples") for path in (ROOT / name).rglob("*.py")),
]
FOLDERS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


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


def test_what_lies_directly_in_the_package_is_the_mathematics():
    directly = {path.stem for path in PACKAGE.glob("*.py")}
    assert directly == (ABOVE_THE_HOST_BORDER - {"agents"}) | {"__main__"}
    assert len(directly) <= MOST_FILES


def test_pure_layer_imports_along_the_arrows_only():
    for path in pure_files():
        part = part_of(path)
        # `load`, `train` and `Config` are imported when they are asked for; test_public_api.py
        # shows that importing the package imports none of them.
        exports = {"distributions", "losses", "returns", "types", "runs", "config", "training"}
        allowed = exports | {"errors"} if part == "__init__" else ARROWS[part]
        assert set(parts_imported_by(path)) - {part} <= allowed, path


def test_pure_layer_imports_nothing_of_the_host():
    for path in pure_files():
        assert not packages_imported_by(path) & HOST_PACKAGES, path


def test_files_of_the_mathematics_import_no_folder_but_agents():
    for path in pure_files():
        if part_of(path) != "__init__":
            assert not set(parts_imported_by(path)) & (FOLDERS - {"agents"}), path


def test_no_part_imports_itself_by_a_detour():
    graph = {}
    for path in FILES:
        part = part_of(path)
        graph.setdefault(part, set()).update(set(parts_imported_by(path)) - {part})
    # The package hands on what its files define; that is no detour.
    graph.pop("__init__")
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_file_imports_itself_by_a_detour():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        imported = {
            f"{m}.{name}" if f"{m}.{name}" in modules else m for m, name in imports_of(path)
        }
        graph[module] = (imported & modules.keys()) - {module}
    graphlib.TopologicalSorter(graph).prepare()


def test_shared_parameters_know_nothing_of_those_who_use_them():
    for path in (PACKAGE / "parameters").glob("*.py"):
        assert not set(parts_imported_by(path)) & {"actors", "config", "runs"}, path


def test_envpool_has_one_importer():
    importers = [relative_name(p) for p in ALL_FILES if "envpool" in packages_imported_by(p)]
    assert importers == ["a3cjax/envs/making.py"]


def test_ray_has_one_importer():
    importers = [relative_name(p) for p in ALL_FILES if "ray" in packages_imported_by(p)]
    assert importers == ["a3cjax/cluster/ray_engine.py"]


def test_optional_extras_are_imported_when_asked_for():
    for path in FILES:
        at_the_top = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)
        ]
        names = {alias.name.split(".")[0] for node in at_the_top for alias in node.names}
        assert not names & {"wandb", "mlflow", "optuna"}, path


def test_config_is_seen_by_the_program_only():
    for path in FILES:
        if part_of(path) in {*READERS_OF_CONFIG, "__init__"}:  # which hands it on
            continue
        assert "config" not in set(parts_imported_by(path)), path


def test_package_does_not_import_the_experiments():
    for path in FILES:
        assert not packages_imported_by(path) & {
            "experiments",
            "examples",
            "tests",
            "benchmarks",
        }, path


def test_jit_is_applied_at_the_border_only():
    for path in pure_files():
        if part_of(path) == "updates":
            continue
        attributes = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        names = {name for _, name in imports_of(path)}
        assert "jit" not in attributes | names


MOST_ARGUMENTS = 9
FEW_ARGUMENTS = {"actors", "parameters", "training"}


def arguments_of(node):
    """The names of what a function takes, or a dataclass; an instance itself does not count."""
    if isinstance(node, ast.ClassDef):
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        return [ast.unparse(field.target) for field in fields]
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += filter(None, [arguments.vararg, arguments.kwarg])
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def is_dataclass(node):
    decorators = getattr(node, "decorator_list", [])
    return any("dataclass" in ast.unparse(decorator) for decorator in decorators)


@for_each("path", [path for path in FILES if part_of(path) in FEW_ARGUMENTS])
def test_few_arguments_put_a_run_together(path):
    assert FEW_ARGUMENTS <= FOLDERS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.ClassDef) and is_dataclass(node)
        ):
            names = arguments_of(node)
            assert len(names) <= MOST_ARGUMENTS, (getattr(node, "name", "lambda"), names)


def test_an_install_has_every_file_of_the_package():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packaged = {f for glob in setuptools["package-data"]["a3cjax"] for f in PACKAGE.glob(glob)}
    left_out = ".py", ".pyc", ".gif"  # code comes by itself; films are for the repository
    others = {path for path in PACKAGE.rglob("*.*") if path.suffix not in left_out}
    assert others == packaged
