"""The style that a linter does not know: sizes, docstrings, no print, nothing left to do.

A file over 300 lines, or one with a function over 50 (its docstring not counted), says why in the first lines of
its docstring: "Longer than 300 lines because ...". A function may say it in its own docstring.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for package in ("cachelib", "invalidator", "loadgen") for path in sorted((ROOT / package).rglob("*.py"))]
FILE_LINES = 300
FUNCTION_LINES = 50
REASON = re.compile(r"\blonger than\b.*?\bbecause\b", re.IGNORECASE | re.DOTALL)
LEFT_TO_DO = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
OF_TEXT = {".py", ".lua", ".sql", ".html", ".toml"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def says_why(node: ast.Module | Function) -> bool:
    first_lines = "\n".join((ast.get_docstring(node) or "").splitlines()[:8])
    return bool(REASON.search(first_lines))


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """From `def` to the end, without the docstring."""
    doc = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    end = function.end_lineno or function.lineno
    return end - function.lineno + 1 - ((doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)


@pytest.mark.parametrize("path", named(FILES))
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)}: say what this module is for"


@pytest.mark.parametrize("path", named(FILES))
def test_file_is_short_or_says_why(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    fine = lines <= FILE_LINES or says_why(ast.parse(text))
    assert fine, f"{path.relative_to(ROOT)} has {lines} lines and does not say: longer than {FILE_LINES} because ..."


@pytest.mark.parametrize("path", named(FILES))
def test_functions_are_short_or_say_why(path: Path) -> None:
    tree = ast.parse(path.read_text())
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name} has {lines_of(function)} lines"
        for function in functions(tree)
        if lines_of(function) > FUNCTION_LINES and not says_why(function) and not says_why(tree)
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", named([path for path in FILES if path.name != "__main__.py"]))
def test_library_does_not_print(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines, f"{path.relative_to(ROOT)} prints in lines {lines}"


def test_nothing_is_left_to_do() -> None:
    texts = [path for package in ("cachelib", "invalidator", "loadgen") for path in (ROOT / package).rglob("*")]
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in sorted(texts)
        if path.suffix in OF_TEXT
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFT_TO_DO.search(line)
    ]
    assert not found, "\n".join(found)
