"""The shape of the code: short functions, and entry points that name no family of models."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mlapp.families import FAMILIES
from tests.conftest import ROOT

LONGEST = 60  # lines of a function
ENTRY_POINTS = ("mlapp/service", "mlapp/scoring", "mlapp/cli", "mlapp/dashboard")
# Classes of the families, their modules, and the tasks that manifests name.
FAMILY_NAMES = {
    *FAMILIES,
    *(target.partition(":")[2] for target in FAMILIES.values()),
    *(target.partition(":")[0] for target in FAMILIES.values()),
}


def parse(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules of folders, parsed."""
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def names_in(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node consists of: of variables, attributes, imports; and its text."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
            yield name
        case ast.ImportFrom(module=module, names=names):
            yield from (f"{module}.{each.name}" for each in names)
            yield from (module or "", *(each.name for each in names))
        case ast.Import(names=names):
            yield from (each.name for each in names)


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path}:{node.lineno}: {node.name} has {lines} lines"
        for path, module in parse("mlapp", "training", "benchmarks", "pages")
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    ]
    assert not long, "\n".join(long)


def test_entry_points_name_no_family_and_no_task() -> None:
    found = [
        f"{path}:{node.lineno}: {name}"  # type: ignore[attr-defined]  # nodes with names have lines
        for path, module in parse(*ENTRY_POINTS)
        for node in ast.walk(module)
        for name in names_in(node)
        if name in FAMILY_NAMES
    ]
    assert not found, "\n".join(found)


def test_a_package_says_what_each_of_its_modules_is_for() -> None:
    unnamed = [
        f"{path.parent} does not name {name}"
        for path, package in parse("mlapp", "training")
        if path.name == "__init__.py"
        for name in modules_in(path.parent)
        if not re.search(
            # At the beginning of a line, maybe after others, or in backticks.
            rf"(?m)^(?: {{4}})?(?:\w+, )*{name}(?:,|  )|`{name}`",
            ast.get_docstring(package) or "",
        )
    ]
    assert not unnamed, "\n".join(unnamed)


def modules_in(folder: Path) -> list[str]:
    """Return the names of the modules and packages in a folder."""
    found = [
        each.stem
        for each in (ROOT / folder).iterdir()
        if each.suffix == ".py" or (each / "__init__.py").exists()
    ]
    return sorted(name for name in found if not name.startswith("__"))
