"""What callers of a cache give and get: keys by name or position, and the long answer of a read."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachelib.entity import Entity
from cachelib.errors import BadKey, ConfigError
from cachelib.keys import Key
from cachelib.port import Found, Source


class _NoKey:
    """Stands where a key was not given by position; `None` is a key that somebody may give by mistake."""

    def __repr__(self) -> str:
        return "<no key>"


_PLAIN = frozenset((int, str))
NO_KEY: Any = _NoKey()


@dataclass(frozen=True, slots=True)
class Read:
    """The long answer of a read.

    `found` is False for absence (`value` is None then). `version` is 0 where there is none.
    `as_of_us`: the store's clock, microseconds, from before the content was loaded; 0 unknown.
    `age_ms`: how old it may have been when the read began, at most: by when it was loaded, or (`Bounded`) by what the
    node's watermark proved. By the store's clock where the level asks for that, else by this process's; None unknown.
    """

    value: Any
    found: bool
    version: int
    source: Source
    as_of_us: int
    age_ms: int | None


def as_read(found: Found) -> Read:
    """The long answer."""
    now_us, fresh_us = found.now_us or time.time_ns() // 1000, max(found.as_of_us, found.proven_us)
    age_ms = max(0, (now_us - fresh_us) // 1000) if fresh_us else None
    return Read(found.value, found.found, found.version, found.source, found.as_of_us, age_ms)


def key_of(entity: Entity, key: Key, named: Mapping[str, Any]) -> Key:
    """The key, given by position or by the template's names, as loaders get it: by position. Raises `BadKey`."""
    if key is NO_KEY:
        if not named:
            raise BadKey(f"{entity!r}: give a key, or each of its fields by name: {', '.join(entity.template.fields)}")
        return entity.template.plain(named)
    if named:
        raise BadKey(f"{entity!r}: give the key or its fields by name, not both ({key!r} and {dict(named)!r})")
    # A mapping is asked for last: to find out that a key is none takes longer than all else here.
    return entity.template.plain(key) if type(key) not in _PLAIN and isinstance(key, Mapping) else key


def keys_of(entity: Entity, keys: Iterable[Key]) -> list[Key]:
    """The keys of a batch, as `key_of` gives them; all fit the template. Raises `BadKey`."""
    keys = list(keys)
    if _PLAIN.issuperset(map(type, keys)):
        return keys
    plain = [key_of(entity, key, {}) for key in keys]
    for key in plain:
        if type(key) not in _PLAIN:
            entity.text(key)
    return plain


def arguments_of(function: Callable[..., Any], entity: Entity) -> Callable[..., Key]:
    """From a call's arguments to the key. Raises `ConfigError` where the template does not fit the function."""
    signature = inspect.signature(function)
    fields = entity.template.fields
    if tuple(signature.parameters) != fields:
        raise ConfigError(
            f"{function.__qualname__}{signature} and {entity.template.text!r} do not fit:"
            " the template needs exactly the function's parameters, in their order"
        )

    def key(*args: Any, **kwargs: Any) -> Key:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values: Sequence[Any] = tuple(bound.arguments[field] for field in fields)
        return values[0] if len(values) == 1 else values

    return key
