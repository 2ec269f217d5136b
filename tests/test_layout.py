"""The layout: a folder imports only folders above it, no two modules import each other, and no file is long."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pyro_vae

ROOT = Path(pyro_vae.__file__).parent
ORDER = (
    *("core", "distributions", "networks", "families", "schedules", "objectives", "compile", "data", "model"),
    *("training", "criticism", "registry", "plots", "runs", "workflow", "sweeps", "reports", "cli"),
)
"""The folders; each may import those before it."""

LONGEST = 400
"""Lines of a file."""


def sources(root: Path) -> dict[str, str]:
    """The text of every module by its dotted name, as in "pyro_vae.core.rng"."""
    found = {}
    for file in root.rglob("*.py"):
        parts = (root.name, *file.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text(encoding="utf-8")
    return found


def imports(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules of the package that each module imports, at its top, in a function or for types alone."""
    package = next(iter(modules)).partition(".")[0]
    return {name: set(_imports(package, name, text, modules)) - {name} for name, text in modules.items()}


def _imports(package: str, name: str, text: str, modules: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] == package:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == package)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{name} imports relatively: write the whole name")


def running_up(found: Mapping[str, set[str]], order: tuple[str, ...] = ORDER) -> list[str]:
    """The imports of a folder below, or of the package itself."""
    rank = {folder: number for number, folder in enumerate(order)}
    return [
        f"{name} imports {other}"
        for name, others in found.items()
        for other in others
        if "." in name and ("." not in other or rank[other.split(".")[1]] > rank[name.split(".")[1]])
    ]


def circle(found: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle, or nothing."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


FOUND = imports(sources(ROOT))


def test_folder_imports_only_folders_above_it() -> None:
    assert running_up(FOUND) == []


def test_modules_import_each_other_in_no_circle() -> None:
    assert circle(FOUND) == []


def test_package_holds_folders_and_nothing_else() -> None:
    held = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert held == {"__init__.py", "__init__.pyi", "py.typed", *ORDER}


@pytest.mark.parametrize("folder", [ROOT, Path(__file__).parent], ids=["package", "tests"])
def test_file_is_short(folder: Path) -> None:
    lengths = {str(file.relative_to(folder)): len(file.read_text().splitlines()) for file in folder.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


@pytest.mark.parametrize(
    ("text", "up", "around"),
    [
        ("from pyro_vae.core import rng", [], 0),
        ("from pyro_vae.cli import main", ["pyro_vae.data.a imports pyro_vae.cli"], 0),
        ("def lazily():\n    import pyro_vae.runs.folder", ["pyro_vae.data.a imports pyro_vae.runs.folder"], 0),
        ("import pyro_vae", ["pyro_vae.data.a imports pyro_vae"], 0),
        ("from pyro_vae.data import b", [], 3),
    ],
)
def test_law_of_the_layout_can_fail(text: str, up: list[str], around: int) -> None:
    modules = {"pyro_vae": "", "pyro_vae.data.a": text, "pyro_vae.data.b": "from pyro_vae.data.a import c"}
    found = imports(modules)
    assert running_up(found) == up
    assert len(circle(found)) == around


def imported_tests(text: str) -> list[str]:
    """The test modules that a file imports: what tests share lies in helpers."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if any(part.startswith("test_") for part in name.split("."))]


def test_tests_share_by_helpers_alone() -> None:
    folder = Path(__file__).parent
    found = {str(file.relative_to(folder)): imported_tests(file.read_text()) for file in folder.rglob("*.py")}
    assert [name for name, modules in found.items() if modules] == ["test_contributing.py"]  # runs the laws themselves


@pytest.mark.parametrize("text", ["from model.test_vae import small", "from model import test_vae"])
def test_import_of_a_test_module_is_found(text: str) -> None:
    assert len(imported_tests(text)) == 1
