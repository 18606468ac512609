"""The wings and rooms stay as the design draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "platform" / "dure"

# From the ground up: a room imports only itself and rooms before it.
ROOMS = (
    "secrets",
    "errors",
    "logging",
    "signals",
    "files",
    "imports",
    "proxies",
    "config",
    "data",
    "metrics",
    "modeling",
    "runs",
    "events",
    "storage",
    "reporting",
    "family",
    "pages",
    "training",
    "runtime",
    "outputs",
    "jobs",
    "preflight",
    "epochs",
    "exports",
    "studies",
    "serving",
    "archive",
    "running",
    "api",
    "resume_check",
    "testing",
    "notebook",
    "cli",
    "__main__",
    "__init__",
)
RAY_ROOMS = {"ray.train": "runtime", "ray.init": "runtime", "ray.tune": "studies", "ray.serve": "serving"}
FOREIGN = ("trainables", "search_spaces", "cluster", "tests")
SOURCES = sorted(ENGINE.rglob("*.py"))


def names_used(source: str) -> Iterator[str]:
    """Give the dotted name of everything imported, and of every attribute read from an imported module."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                modules[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield f"{modules[node.value.id]}.{node.attr}"


def room_of(file: Path) -> str:
    """Return the room of a source; the test of a contract runs what its room must not know, and nothing runs it."""
    if file.name == "testing.py":
        return "testing"
    return file.relative_to(ENGINE).parts[0].removesuffix(".py")


def trespasses(room: str, source: str) -> list[str]:
    """Return what a source of a room uses although its room must not."""
    found = []
    for name in names_used(source):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if name.startswith("."):
            found.append("a relative import")
        elif top in FOREIGN or (top == "dure" and other in ROOMS and ROOMS.index(other) > ROOMS.index(room)):
            found.append(name)
        elif top == "dure" and other and other not in ROOMS and not other.startswith("__"):
            found.append(f"{name} of the public interface")
        for module, owner in RAY_ROOMS.items():
            if room != owner and (name == module or name.startswith(f"{module}.")):
                found.append(name)
    return sorted(set(found))


def test_platform_is_a_source_root_and_never_a_package() -> None:
    # As a package it would hide the standard library's `platform` from everything run in the repository.
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("wing", ["search_spaces", "cluster"])
def test_wings_of_data_hold_no_importable_code(wing: str) -> None:
    assert list((ROOT / wing).rglob("*.py")) == []


def test_nothing_of_the_engine_uses_the_tests_of_contracts() -> None:
    users = [
        file
        for file in SOURCES
        if any(
            name.startswith("dure.") and ".testing" in name for name in names_used(file.read_text("utf-8"))
        )
    ]
    assert users == []


def test_no_file_of_the_engine_has_more_than_400_lines_and_no_function_more_than_60() -> None:
    long = []
    for file in ENGINE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(str(file))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = 0 if ast.get_docstring(node) is None else first.end_lineno - first.lineno + 1
                if node.end_lineno - node.lineno + 1 - documented > 60:
                    long.append(f"{file}: {node.name}")
    assert not long


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room_of(file) for file in SOURCES}
    assert rooms <= set(ROOMS), "name the new room in ROOMS, at its place"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ENGINE).as_posix())
def test_a_source_imports_only_what_its_room_may(file: Path) -> None:
    assert trespasses(room_of(file), file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("config", "from dure.training import recorder"),
        ("config", "from dure import training"),
        ("config", "import dure.family.contract"),
        ("config", "def f():\n    from dure.cli import main"),
        ("config", "from . import schema"),
        ("config", "from dure import create_trainer"),
        ("training", "from trainables.summarization import Summarization"),
        ("training", "import ray.tune"),
        ("training", "from ray import tune"),
        ("training", "from ray.tune.schedulers import ASHAScheduler"),
        ("training", "import ray\nray.init()"),
        ("training", "import ray as r\nr.init()"),
        ("training", "import ray\nray.train.report({})"),
        ("studies", "from ray import train"),
        ("studies", "from ray.train import Checkpoint"),
        ("runtime", "from ray import tune"),
        ("runtime", "from ray import serve"),
    ],
)
def test_the_guard_catches(room: str, source: str) -> None:
    assert trespasses(room, source)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("training", "from dure.config import Experiment\nfrom dure.training import recorder"),
        ("training", "import ray\nray.get(1)"),
        ("studies", "from ray import tune\nfrom dure.runtime import placement"),
        ("runtime", "import ray\nray.init()\nfrom ray.train import Checkpoint"),
    ],
)
def test_the_guard_lets_pass(room: str, source: str) -> None:
    assert not trespasses(room, source)
