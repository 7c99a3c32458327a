"""Key templates: from `"order:{id:int}"` and a key to the text that names it, the same everywhere.

Library and invalidator must write the same text for the same row, whether its key comes from
Python, from a change-log row or from a Kafka message. So every field has a type that knows how
to read both (`fields.py`).

In the text, values are percent-escaped (only letters, digits and `-_.@+=,` stay), and `:` or `/`
stands between two fields, so a value can never end a field or leave the character set that
Memcached allows. Long keys are hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from cachelib.errors import BadKey, ConfigError
from cachelib.fields import TYPES
from cachelib.policy import one_of

Key: TypeAlias = Any
"""What a caller gives: the value of the one field, or a tuple or mapping of several."""

NAMESPACE_MAX = 32
KEY_TEXT_MAX = 180
"""Longer texts are cut and hashed: Memcached allows 250 bytes in all."""
_KEPT = 60
_SAFE = "-_.@+=,"
_FIELD = re.compile(r"\{([A-Za-z_]\w*)(?::([a-z]+))?\}")
_LITERAL = re.compile(r"[A-Za-z0-9:._@/=+-]*")
_A_FIELD = "{"
_ENDS = (":", "/")
"""They stand in no value, so they end a field."""
DIGITS_MAX = 20
"""Shorter numbers are written as they are, in every key."""
_SHORT_MIN, _SHORT_MAX = -(10**19), 10**20
"""Numbers of at most `DIGITS_MAX` characters."""


class Template:
    """A parsed key template.

    Args:
        text: literals and fields, such as `"order:{id:int}"` or `"stock:{shop}:{item:str}"`.

    Raises:
        ConfigError: the text is not a template.
    """

    __slots__ = ("_head", "_literals", "_only_int", "_types", "fields", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = _FIELD.split(text)
        literals, names, types = pieces[0::3], pieces[1::3], [kind or "any" for kind in pieces[2::3]]
        for literal in literals:
            if not _LITERAL.fullmatch(literal):
                raise ConfigError(
                    f"key template {text!r}: {literal!r} is neither a field such as {{id}} or {{id:int}}"
                    " nor made of letters, digits and :._@/=+-"
                )
        for kind in types:
            one_of(f"the type of a field in key template {text!r}", kind, TYPES)
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"key template {text!r}: it needs at least one field, and each name once")
        self.fields: tuple[str, ...] = tuple(names)
        self._literals = literals
        self._types = [TYPES[kind] for kind in types]
        self._head = literals[0]
        for between in literals[1:-1]:
            if not any(end in between for end in _ENDS):
                raise ConfigError(
                    f"key template {text!r}: put ':' or '/' between two fields; any other character may be part of a"
                    " value, and two rows would share a key"
                )
        bare = len(names) == 1 and types[0] in ("int", "any") and not literals[1]
        self._only_int = bare and len(self._head) <= KEY_TEXT_MAX - 20

    @property
    def name(self) -> str:
        """The literal before the first field, without its separator: the entity's name."""
        return self._head.rstrip(":/._-=@+") or self.text

    def render(self, key: Key) -> bytes:
        """The text of `key`. Raises `BadKey`, before anything is sent."""
        if self._only_int and type(key) is int and _SHORT_MIN < key < _SHORT_MAX:
            return f"{self._head}{key}".encode()  # nearly every key; 3 times faster than the general way
        values = self.values(key)
        text = self._head
        for value, literal in zip(values, self._literals[1:], strict=True):
            text += quote(value, safe=_SAFE, errors="strict").replace("~", "%7E") + literal
        raw = text.encode()
        return raw if len(raw) <= KEY_TEXT_MAX else _hashed(raw)

    def namer(self, prefix: bytes) -> Callable[[Key], bytes]:
        """`prefix` and what `render` says, as one call made for this prefix: each hit begins with it."""
        render = self.render
        if not self._only_int:
            return lambda key: prefix + render(key)
        head = prefix + self._head.encode()

        def name(key: Key) -> bytes:
            if key.__class__ is int and _SHORT_MIN < key < _SHORT_MAX:
                return b"%b%d" % (head, key)
            return prefix + render(key)

        return name

    def stemmed(self, prefix: bytes) -> tuple[bytes, bool]:
        """What every name under `prefix` begins with, and whether the rest of an `int`'s is its digits, up to
        `DIGITS_MAX` of them."""
        if self._only_int and len(self._head) <= _KEPT // 2:  # so that a hashed text begins with it, too
            return prefix + self._head.encode(), True
        return prefix, False

    def render_all(self, keys: Sequence[Key], prefix: bytes) -> list[bytes]:
        """`prefix` and the text of each key. Raises `BadKey`."""
        if not self._only_int:
            return [prefix + self.render(key) for key in keys]
        if {*map(type, keys)} == {int} and min(keys) > _SHORT_MIN and max(keys) < _SHORT_MAX:
            line = (prefix + self._head.encode()).replace(b"%", b"%%") + b"%d\n"
            names = (line * len(keys) % tuple(keys)).split(b"\n")  # all at once: no call for each of them
            names.pop()
            return names
        return [*map(self.namer(prefix), keys)]

    def meets(self, other: Template) -> bool:
        """Whether a key of this template and one of the other can have the same text."""
        mine, theirs = self._pieces(), other._pieces()
        seen: set[tuple[int, int]] = set()
        left = [(0, 0)]
        while left:
            at = left.pop()
            if at in seen:
                continue
            seen.add(at)
            i, j = at
            one, two = mine[i : i + 1], theirs[j : j + 1]
            if not one and not two:
                return True
            # A field takes nothing, or the next piece of the other, which it cannot where a field ends.
            if one == _A_FIELD:
                left += [(i + 1, j), (i, j + 1)] if two and two not in _ENDS else [(i + 1, j)]
            if two == _A_FIELD:
                left += [(i, j + 1), (i + 1, j)] if one and one not in _ENDS else [(i, j + 1)]
            if one == two:
                left.append((i + 1, j + 1))
        return False

    def _pieces(self) -> str:
        return _A_FIELD.join(self._literals)

    def plain(self, key: Key) -> Key:
        """The key without its names: a tuple, or the value of the one field. Raises `BadKey`."""
        if not isinstance(key, Mapping):
            return key
        values = self._split(key)
        return values[0] if len(values) == 1 else values

    def values(self, key: Key) -> tuple[str, ...]:
        """The fields' values as text, in the template's order. Raises `BadKey`."""
        return tuple(self._field(at, value) for at, value in enumerate(self._split(key)))

    def _split(self, key: Key) -> tuple[Any, ...]:
        if isinstance(key, Mapping):
            if set(key) != set(self.fields):
                raise BadKey(f"key {dict(key)!r} of {self.text!r}: it takes {', '.join(self.fields)}")
            return tuple(key[field] for field in self.fields)
        if len(self.fields) == 1:
            return (key[0],) if isinstance(key, tuple) and len(key) == 1 else (key,)
        if not isinstance(key, tuple) or len(key) != len(self.fields):
            raise BadKey(f"key {key!r} of {self.text!r}: give a tuple of {', '.join(self.fields)}, or each by its name")
        return key

    def _field(self, at: int, value: Any) -> str:
        try:
            text = self._types[at](value)
            text.encode()
        except (ValueError, ArithmeticError) as cause:
            raise BadKey(
                f"field {self.fields[at]!r} of key {self.text!r} is {_shown(value)}, a {type(value).__name__},"
                f" not {cause}"
            ) from cause
        return text

    def from_columns(self, columns: Mapping[str, Any], names: tuple[str, ...]) -> Key | None:
        """The key that a row's columns give; None where one is missing or NULL (no such key)."""
        values = tuple(columns.get(name) for name in names)
        if any(value is None for value in values):
            return None
        return values[0] if len(values) == 1 else values


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a huge number"
    return text if len(text) <= 200 else text[:200] + "…"


def _hashed(raw: bytes) -> bytes:
    """`~` occurs in no text that is not hashed, so the two kinds never meet."""
    digest = hashlib.blake2b(raw, digest_size=20).hexdigest()
    head = raw[:_KEPT]
    cut = head.rfind(b"%", _KEPT - 2)  # not in the middle of an escape
    return (head if cut < 0 else head[:cut]) + b"~" + digest.encode()


def check_namespace(namespace: str) -> None:
    """Raise `ConfigError` where it cannot stand before every name."""
    plain = namespace.replace("-", "").replace("_", "").replace(".", "")
    if not namespace or len(namespace) > NAMESPACE_MAX or not plain.isalnum() or not plain.isascii():
        raise ConfigError(f"namespace is {namespace!r}: it takes 1 to {NAMESPACE_MAX} letters, digits and -_.")
