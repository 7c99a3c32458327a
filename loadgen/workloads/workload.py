"""A workload: what is asked of how many keys. Presets come with the package, own ones are TOML files.

Every setting has its source in the preset's file. A workload says nothing of rate and time, but for
arrivals that were published with it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cachelib.errors import ConfigError
from loadgen.arrivals import Gaps, Poisson
from loadgen.workloads.popularity import Popularity, Zipfian
from loadgen.workloads.sizes import Constant, Distribution

PRESETS = "presets"


class Mix(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the operations; they need not sum to 1. `lone_get` asks for what never exists; `scan` asks for
    neighbouring keys in one call, `multiget` for popular ones; `rmw` reads, then sets.
    """

    get: Annotated[float, Meta(ge=0)] = 0.0
    multiget: Annotated[float, Meta(ge=0)] = 0.0
    scan: Annotated[float, Meta(ge=0)] = 0.0
    lone_get: Annotated[float, Meta(ge=0)] = 0.0
    set: Annotated[float, Meta(ge=0)] = 0.0
    insert: Annotated[float, Meta(ge=0)] = 0.0
    rmw: Annotated[float, Meta(ge=0)] = 0.0
    delete: Annotated[float, Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        if not sum(msgspec.structs.astuple(self)) > 0:
            raise ValueError("the mix needs a weight above 0")

    def shares(self) -> dict[str, float]:
        """By operation, in the order of `OPERATIONS`; they sum to 1."""
        weights = msgspec.structs.asdict(self)
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}


OPERATIONS = tuple(field.name for field in msgspec.structs.fields(Mix))
"""An operation's number is its place here."""
GET, MULTIGET, SCAN, LONE_GET, SET, INSERT, RMW, DELETE = range(len(OPERATIONS))


class Workload(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module. `value_bytes`, `ttl_s` and `key_bytes` belong to a key and stay with it; `batch` is how many
    keys a multiget or scan asks.
    """

    name: str
    source: str = ""
    """Where its numbers were published."""
    keys: Annotated[int, Meta(ge=1, le=100_000_000)] = 100_000
    popularity: Popularity = Zipfian()
    mix: Mix = Mix(get=0.95, set=0.05)
    key_bytes: Distribution = Constant(16)
    value_bytes: Distribution = Constant(100)
    ttl_s: Distribution = Constant(3600)
    batch: Distribution = Constant(10)
    gaps: Gaps = Poisson()
    """How arrivals are spread, unless the run says otherwise."""


def parse(text: str, where: str) -> Workload:
    """From TOML. Raises `ConfigError`: unknown settings, wrong types, values out of range."""
    try:
        return msgspec.convert(tomllib.loads(text), Workload)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_with_hint(str(error))}") from error


def _with_hint(message: str) -> str:
    """An unknown setting, with the nearest known one."""
    unknown = re.search(r"unknown field `(\w+)`", message)
    if unknown is None:
        return message
    near = difflib.get_close_matches(unknown[1], _settings(Workload), n=1)
    return f"{message}: did you mean {near[0]!r}?" if near else message


def _settings(kind: Any) -> set[str]:
    """Every name of a setting, however deep."""
    found: set[str] = set()
    for field in msgspec.structs.fields(kind):
        found.add(field.name)
        for part in getattr(field.type, "__args__", (field.type,)):
            if isinstance(part, type) and issubclass(part, Struct):
                found |= _settings(part)
    return found


def presets() -> list[str]:
    """The names of those that come with the package."""
    folder = resources.files("loadgen.workloads") / PRESETS
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def workload_of(name: str) -> Workload:
    """A preset by its name, or a TOML file by its path. Raises `ConfigError`."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"there is no workload file {name}")
        return parse(path.read_text(encoding="utf-8"), name)
    if name not in (known := presets()):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"workload {name!r} is no preset, and no path that ends in .toml: {hint}")
    file = resources.files("loadgen.workloads") / PRESETS / f"{name}.toml"
    return parse(file.read_text(encoding="utf-8"), f"preset {name}")
