"""The straight way to a plain hit, for threads and a single node: from a key to its value in one function.

Each call of Python that a hit passes through costs as much as a part of the work itself, so here name, request, reply,
header and decoding stand behind each other. What differs between servers is data (`backends.base.Wire`), and the header
is read as `envelope.plain_hit` reads it. Whatever is no plain hit is left to the usual way, with what was received.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from cachelib.backends.base import Wire
from cachelib.breaker import Breaker
from cachelib.entity import Entity
from cachelib.envelope import FRESH_LINES, reply_unpacker
from cachelib.keys import DIGITS_MAX, KEY_TEXT_MAX, Key
from cachelib.metrics import HIT_SAMPLE, Tally
from cachelib.plans import NOT_ASKED, Raw

RECEIVE_BYTES = 65536
SHAPES_MAX = 256
"""So many lengths of replies are remembered, for each length of a key's text."""
_CRLF = b"\r\n"

Ask: TypeAlias = Callable[[Key, float], Any]
"""From a key and when the read began (monotonic, seconds) to the value, or `Unserved`."""


class Unserved:
    """No plain hit. `raw`: what the node answered; None where it has nothing or did not answer."""

    __slots__ = ("raw",)

    def __init__(self, raw: Raw) -> None:
        self.raw = raw


UNASKED, NOTHING = Unserved(NOT_ASKED), Unserved(None)


class Trusted(Protocol):
    """Where to look, after an answer came, whether it still counts: `trust` is what it was. See `Standing`."""

    trust: Any


class Anybody:
    """`Trusted`, for who takes any server's answer."""

    trust = None


class Usual(Protocol):
    """The part of a lane that is needed here."""

    entity: Entity
    prefix: bytes
    breaker: Breaker
    tally: Tally
    skew_ms: float

    def look(self, key: Key, began: float) -> Any:
        """The usual way, from the beginning."""

    def through(self, key: Key, began: float, stamp: int, ask: Callable[..., bytes | None], *args: Any) -> Any:
        """The usual way, from asking on."""

    def sampled(self, key: Key, raw: bytes, seconds: float) -> None:
        """See `Lane.sampled`."""


class _Shapes(dict[int, tuple[bytes | None, Callable[[bytes], tuple[Any, ...]]]]):
    """By the length of a whole reply: what it begins with if it is one value, and how to take that apart."""

    def __init__(self, opening: bytes, closing: bytes, echo: int) -> None:
        super().__init__()
        self._opening, self._closing, self._echo = opening, closing, echo

    def __missing__(self, size: int) -> tuple[bytes | None, Callable[[bytes], tuple[Any, ...]]]:
        if len(self) >= SHAPES_MAX:
            self.clear()
        shape = self[size] = self._shape(size)
        return shape

    def _shape(self, size: int) -> tuple[bytes | None, Callable[[bytes], tuple[Any, ...]]]:
        around = len(self._opening) + len(self._closing) + self._echo + 2 * len(_CRLF)
        for digits in range(1, len(str(RECEIVE_BYTES)) + 1):
            item = size - around - digits
            if len(str(item)) == digits and item >= 0:
                lead = b"%b%d%b" % (self._opening, item, self._closing)
                unpack = reply_unpacker(len(lead), self._echo, item)
                if unpack is not None:
                    return lead, unpack
        return None, _no_value


def _no_value(_data: bytes) -> tuple[Any, ...]:
    return b"", b"", b"", 0, 0, 0, b"", b"", b""


class _Forms(dict[int, tuple[bytes, bytes, _Shapes]]):
    """By the length of a key's text: what stands before it and behind it in a request, and its replies."""

    def __init__(self, wire: Wire, stem: bytes, most: int) -> None:
        super().__init__()
        self._wire, self._stem, self._most = wire, stem, most
        self._shapes = None if wire.names else _Shapes(wire.opening, wire.closing, 0)

    def __missing__(self, length: int) -> tuple[bytes, bytes, _Shapes]:
        wire, stem = self._wire, self._stem
        if length > self._most:
            raise IndexError(length)
        shapes = self._shapes
        if shapes is None:
            shapes = _Shapes(wire.opening, wire.closing + stem, length)
        form = self[length] = wire.before(len(stem) + length) + stem, wire.behind, shapes
        return form


def straight(usual: Usual, wire: Wire, standing: Trusted, trust: Any) -> Ask:
    """The hit path of one entity by way of `wire`. An answer counts while `trust` is the one of `standing`."""
    packer, hits, breaker = usual.entity.packer, usual.tally.hits.numbers, usual.breaker
    template, begins, decode = usual.entity.template, packer.prefix, packer.decode
    (stem, plain), render = template.stemmed(usual.prefix), template.render
    number, skipped = int if plain else None, len(stem) - len(usual.prefix)
    forms = _Forms(wire, stem, DIGITS_MAX if plain else KEY_TEXT_MAX)

    def trusted(way: Callable[..., bytes | None], *args: Any) -> bytes | None:
        raw = way(*args)
        return raw if standing.trust is trust else None

    def ask(key: Key, began: float) -> Any:
        if breaker.failed:
            return UNASKED
        rack = wire.rack
        try:
            text = b"%d" % key if key.__class__ is number else render(key)[skipped:]
            before, behind, shapes = forms[len(text)]
            link = rack.free.pop()
        except (IndexError, ValueError):  # no free connection, or no such key
            return usual.look(key, began)
        try:
            link.send(before + text + behind)
            data = link.receive(RECEIVE_BYTES)
            opening, unpack = shapes[len(data)]
            start, echo, line, version, floor, due_ms, prefix, body, end = unpack(data)
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves a reply behind
            return usual.through(key, began, 0, trusted, wire.again, rack, link, stem + text, error)
        if start != opening or end != _CRLF or (echo and echo != text):
            return usual.through(key, began, 0, trusted, wire.rest, rack, link, stem + text, data)
        rack.free.append(link)
        if rack.busy:
            rack.settle()
        if line in FRESH_LINES and version >= floor and prefix == begins and standing.trust is trust:
            if due_ms > began * 1000 + usual.skew_ms or not due_ms:
                try:
                    value = decode(body)
                except Exception:  # noqa: BLE001 - I12: the usual way finds out which, and what to do about it
                    return usual.through(key, began, 0, _itself, data[len(start) + len(echo) + 2 : -2])
                if not next(hits) & HIT_SAMPLE:
                    raw = data[len(start) + len(echo) + 2 : -2]
                    usual.sampled(key, raw, time.monotonic() - began)
                return value
        return usual.through(key, began, 0, trusted, _itself, data[len(start) + len(echo) + 2 : -2])

    return ask


def _itself(raw: bytes) -> bytes:
    return raw
