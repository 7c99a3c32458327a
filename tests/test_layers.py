"""Imports go one way. The tables below are the plan of the house: a new module takes a place in `LAYERS`.

A module may import those of its own layer and of the layers before it in the table, nothing from those after it.
Imports under `if TYPE_CHECKING` count for the direction (a type is a dependency too) but not for cycles.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cachelib", "invalidator", "loadgen")

# Lowest first. A package's name stands for its modules that have no place of their own.
LAYERS: list[set[str]] = [
    {"model", "errors", "clock", "metrics", "fields"},
    # The two `base` are protocols, words without deeds, which everybody may speak.
    {"policy", "keys", "codecs", "entity", "effects", "breaker", "l1", "proof", "backends.base", "stores.base"},
    {"slots", "overlap", "forks"},
    {"item", "layout", "port", "world", "budget", "levels", "storeclock", "standing"},
    {"readplan", "shown", "steps", "history", "session"},
    {"drivers"},
    # Handed to the faces: the core never imports them.
    {"envelope", "nodes", "places", "pool", "backends", "stores"},
    {
        *(
            "asked",
            "lane",
            "many",
            "flights",
            "threads",
            "loops",
            "loading",
            "plans",
            "call",
            "view",
            "grounds",
            "comparing",
        ),
        *("core", "shadow", "writes", "strangers", "commit", "sessions", "client", "aio", "transaction", "explain"),
        *("compare", "truths", "straight", "faces", "parts", "puts"),
    },
    {"testing", "doctor", "cli", "cli_layout", "__main__"},
]

# They come after the client's machine only because it must not import them; they do not build on it either.
APART = {"envelope", "nodes", "backends", "stores"}
NOT_FOR_APART = {"steps", "session", "drivers", "flights"}

# What `invalidator` and `loadgen` may import of `cachelib`.
PUBLIC = {
    "cachelib",
    "cachelib.backends",
    "cachelib.backends.base",
    "cachelib.budget",
    "cachelib.clock",
    "cachelib.codecs",
    "cachelib.compare",
    "cachelib.entity",
    "cachelib.effects",
    "cachelib.envelope",
    "cachelib.errors",
    "cachelib.keys",
    "cachelib.layout",
    "cachelib.metrics",
    "cachelib.model",
    "cachelib.nodes",
    "cachelib.places",
    "cachelib.policy",
    "cachelib.proof",
    "cachelib.slots",
    "cachelib.stores",
    "cachelib.stores.base",
    "cachelib.testing",
    "cachelib.truths",
}

# The two machines that hold every rule: no clock, no chance, no world.
PURE = {"item", "readplan", "shown", "steps", "levels"}
IMPURE = {"asyncio", "logging", "random", "socket", "threading", "time"}

NO_ROOM_FOR = {"common", "helpers", "manager", "utils"}


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    module: str
    line: int
    for_types_only: bool


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ALL = {module_of(path): path for package in PACKAGES for path in files(package)}


@cache
def imports(module: str) -> list[Import]:
    """Everything that a module imports, also inside functions."""
    return list(_walk(ast.parse(ALL[module].read_text()), for_types_only=False))


def _walk(node: ast.AST, *, for_types_only: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, for_types_only) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        # `from package import name`: of the module `package.name` where there is one, else of `package`.
        for alias in node.names:
            name = f"{origin}.{alias.name}"
            yield Import(name if name in ALL else origin, node.lineno, for_types_only)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for guarded in node.body:
            yield from _walk(guarded, for_types_only=True)
        for other in node.orelse:
            yield from _walk(other, for_types_only=for_types_only)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, for_types_only=for_types_only)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def room_of(module: str) -> str:
    """The name under which a module of `cachelib` stands in the table: its own, or its package's."""
    inside = module.removeprefix("cachelib.")
    known = set().union(*LAYERS)
    return inside if inside in known else package_of(inside)


def layer_of(room: str) -> int | None:
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), None)


def says(module: str, found: Import, why: str) -> str:
    return f"{ALL[module].relative_to(ROOT)}:{found.line} imports {found.module}: {why}"


LIBRARY = [module for module in ALL if module.startswith("cachelib.")]
SERVICES = [module for module in ALL if package_of(module) in {"invalidator", "loadgen"}]


@pytest.mark.parametrize("module", LIBRARY)
def test_every_module_has_a_place(module: str) -> None:
    room = room_of(module)
    near = difflib.get_close_matches(room, set().union(*LAYERS), n=1)
    assert layer_of(room) is not None, f"{module} has no place in LAYERS: give it one" + (
        f" (or is it {near[0]}?)" if near else ""
    )


@pytest.mark.parametrize("module", LIBRARY)
def test_imports_go_one_way(module: str) -> None:
    room = room_of(module)
    own = layer_of(room)
    wrong = []
    for found in imports(module):
        if found.module == "cachelib":
            wrong.append(says(module, found, "inside the library name the module itself"))
        if not found.module.startswith("cachelib."):
            continue
        other = room_of(found.module)
        theirs = layer_of(other)
        if own is None or theirs is None:
            continue  # test_every_module_has_a_place says so
        if theirs > own:
            wrong.append(says(module, found, f"{other} comes after {room} in LAYERS"))
        elif room in APART and other in NOT_FOR_APART:
            wrong.append(says(module, found, f"{room} is handed to the faces and knows nothing of {other}"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_goes_in_a_circle(package: str) -> None:
    inside = {module for module in ALL if package_of(module) == package}
    graph = {
        module: {
            found.module
            for found in imports(module)
            if found.module in inside and not found.for_types_only and found.module != module
        }
        for module in inside
        if ALL[module].name != "__init__.py"  # it gathers names; its own modules do not go through it
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", SERVICES)
def test_services_use_public_names_only(module: str) -> None:
    wrong = [
        says(module, found, "not a public module (PUBLIC)")
        for found in imports(module)
        if package_of(found.module) == "cachelib" and found.module not in PUBLIC
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ALL)
def test_packages_do_not_know_each_other(module: str) -> None:
    package = package_of(module)
    others = set(PACKAGES) - {package, "cachelib"} | {"tests"}
    wrong = [
        says(module, found, f"{package} stands alone")
        for found in imports(module)
        if package_of(found.module) in others
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(PURE))
def test_machines_know_neither_clock_nor_chance_nor_world(room: str) -> None:
    module = f"cachelib.{room}"
    wrong = [
        says(module, found, "the machines are pure")
        for found in (imports(module) if module in ALL else [])
        if package_of(found.module) in IMPURE
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ALL)
def test_no_module_is_named_after_nothing(module: str) -> None:
    assert not NO_ROOM_FOR.intersection(module.split(".")), f"name {module} after the noun it is about"
