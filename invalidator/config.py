"""Where the settings' values come from.

A TOML file, then the environment (`INVALIDATOR_STORE__URL`, two underscores go down one level), then
flags; the later wins. Everything is checked when it is built.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cachelib.errors import ConfigError
from cachelib.policy import duration_ms, one_of, refuse_unknown
from invalidator.settings import Settings

ENVIRONMENT = "INVALIDATOR_"
T = TypeVar("T")


# --- building --------------------------------------------------------------------------------


def load(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from all three places. Raises `ConfigError`: one sentence that names the setting."""
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _read(path)))
    layers.append(("the environment", _nested(environment)))
    layers.append(("the command line", flags))
    merged: dict[str, Any] = {}
    for origin, layer in layers:
        _merge(merged, layer, Settings(), origin)
    settings = _build(Settings, merged, "")
    named = (("namespace", settings.namespace, 32), ("consumer", settings.consumer, 64))
    for name, value, most in (*named, ("relay.consumer", settings.relay.consumer, 64)):
        if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{most}}}", value):  # it becomes part of names on the nodes
            raise ConfigError(f"{name} is {value!r}: it takes 1 to {most} letters, digits and -_.")
    return settings


def _merge(into: dict[str, Any], layer: Mapping[str, Any], known: Any, origin: str, section: str = "") -> None:
    names = {_outside(one.name): one.name for one in dataclasses.fields(known)}
    refuse_unknown(f"{origin}{f', section [{section}],' if section else ''}", sorted(set(layer) - set(names)), names)
    for name, value in layer.items():
        default = getattr(known, names[name])
        if dataclasses.is_dataclass(default):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{origin}: {name!r} is a section, give [{name}] with settings in it")
            _merge(into.setdefault(name, {}), value, default, origin, name)
        else:
            into[name] = value


def _build(kind: type[T], given: Mapping[str, Any], section: str) -> T:
    values: dict[str, Any] = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = _outside(one.name)
        if name not in given:
            continue
        dotted = f"{section}.{name}" if section else name
        default = one.default_factory() if callable(one.default_factory) else one.default
        if dataclasses.is_dataclass(default):
            values[one.name] = _build(type(default), given[name], name)
        else:
            values[one.name] = _value(dotted, given[name], default, one.metadata)
    return kind(**values)


def _value(name: str, given: Any, default: Any, rules: Mapping[str, Any]) -> Any:
    if "text" in rules:
        least, most = rules["range"]
        return duration_ms(name, given, least_ms=least, most_ms=most) / 1000
    if isinstance(default, int):
        return _whole(name, given, *rules["range"])
    if isinstance(default, tuple):
        return _items(name, given, rules)
    if not isinstance(given, str):
        raise ConfigError(f"{name} is {_fit_to_show(given, rules)}: give text")
    if rules["among"]:
        one_of(name, given, rules["among"])
    return given


def _items(name: str, given: Any, rules: Mapping[str, Any]) -> tuple[Any, ...]:
    items = tuple(given.split() if isinstance(given, str) else given if isinstance(given, list | tuple) else ())
    kind = Mapping if name == "rules" else str
    if given and not (items and all(isinstance(item, kind) for item in items)):
        wanted = "tables, [[rules]]" if name == "rules" else "texts"
        raise ConfigError(f"{name} is {_fit_to_show(given, rules)}: give a list of {wanted}")
    return items


def _fit_to_show(given: Any, rules: Mapping[str, Any]) -> str:
    """A value for an error; of a secret only what kind of value it is."""
    return f"of type {type(given).__name__}" if rules.get("secret") else repr(given)


def _whole(name: str, given: Any, least: int, most: int) -> int:
    try:
        number = int(given) if not isinstance(given, bool | float) else None
    except (ValueError, TypeError):
        number = None
    if number is None or not least <= number <= most:
        raise ConfigError(f"{name} is {given!r}: give a whole number between {least} and {most}")
    return number


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error


def _nested(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT):
            continue
        *sections, name = variable.removeprefix(ENVIRONMENT).lower().split("__")
        place: Any = found
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or isinstance(place.get(name), dict):
            raise ConfigError(
                f"the environment gives {variable} beside another variable that makes a section of a setting, or a"
                f" setting of a section: unset one of them"
            )
        place[name] = value
    return found


def _outside(name: str) -> str:
    return name.removesuffix("_s")


# --- showing ---------------------------------------------------------------------------------


def redacted(url: str) -> str:
    """The URL without the password and without what follows a "?": fit for a log."""
    scheme, separator, rest = url.partition("://")
    head = rest.partition("?")[0]
    if not separator or ("@" in rest and "@" not in head):
        return f"{scheme}://(hidden)" if separator else "(not a URL)"  # perhaps a password with a "?" in it
    user, at, place = head.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{place}"


def node_name(url: str) -> str:
    """What a node is called in the store, in metrics and in logs: its URL without user and password."""
    scheme, separator, rest = redacted(url).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def listing() -> Sequence[tuple[str, str, str]]:
    """Every setting as (name, default, meaning), for `--help` and the README."""
    rows: list[tuple[str, str, str]] = []
    for one in dataclasses.fields(Settings):
        default = one.default_factory() if callable(one.default_factory) else one.default
        if dataclasses.is_dataclass(default):
            rows += [
                (f"{one.name}.{_outside(inner.name)}", _shown(inner.default, inner.metadata), inner.metadata["doc"])
                for inner in dataclasses.fields(default)
            ]
        else:
            rows.append((one.name, _shown(default, one.metadata), one.metadata["doc"]))
    return rows


def _shown(default: Any, rules: Mapping[str, Any]) -> str:
    if isinstance(default, tuple):
        return " ".join(default)
    return str(rules.get("text", default))
