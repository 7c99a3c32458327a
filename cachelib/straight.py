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
from cachelib.envelope import CRLF, fresh_line, reply_unpacker
from cachelib.keys import DIGITS_MAX, KEY_TEXT_MAX, Key
from cachelib.metrics import HIT_SAMPLE, Tally
from cachelib.plans import NOT_ASKED, Raw

RECEIVE_BYTES = 65536
SHAPES_MAX = 256
"""So many lengths of replies are remembered, for each length of a key's text."""
HORIZON_S = 1.0
"""For so long at once it is known that nothing is due which is due later than that."""
_NEVER = bytes(8)

Ask: TypeAlias = Callable[[Key, float], Any]
"""From a key and when the read began (monotonic, seconds) to the value, or `Unserved`."""
Unpack: TypeAlias = Callable[[bytes], tuple[Any, ...]]


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


class _Shapes(dict[int, tuple[bytes, Unpack]]):
    """By the length of a whole reply: how it begins if it is one value, up to the name in it, and how to take it apart.

    `echo`: the length of the key's text in a reply that names it.
    """

    def __init__(self, opening: bytes, closing: bytes, echo: int, line: bytes) -> None:
        super().__init__()
        self._opening, self._closing, self._echo, self._line = opening, closing, echo, line

    def __missing__(self, size: int) -> tuple[bytes, Unpack]:
        if len(self) >= SHAPES_MAX:
            self.clear()
        shape = self[size] = self._shape(size)
        return shape

    def _shape(self, size: int) -> tuple[bytes, Unpack]:
        around = len(self._opening) + len(self._closing) + self._echo + 2 * len(b"\r\n")
        for digits in range(1, len(str(RECEIVE_BYTES)) + 1):
            item = size - around - digits
            if len(str(item)) == digits and item >= 0:
                opening = b"%b%d%b" % (self._opening, item, self._closing)
                unpack = reply_unpacker(len(opening) + self._echo + len(self._line), item)
                if unpack is not None:
                    return opening if self._echo else opening + self._line, unpack
        return b"-", _no_value


def _no_value(_data: bytes) -> tuple[Any, ...]:
    return b"", 0, 0, b"", b"", b"", 0


class _Forms(dict[int, tuple[bytes, bytes, _Shapes]]):
    """By the length of a key's text: what stands before it and behind it in a request, and its replies."""

    def __init__(self, wire: Wire, entity: Entity, prefix: bytes) -> None:
        super().__init__()
        self.stem, self.plain = entity.template.stemmed(prefix)
        """What each name begins with, and whether an `int`'s digits are the rest."""
        self.skipped = len(self.stem) - len(prefix)
        """So much of what the template renders is in the stem."""
        self.line = fresh_line(known=entity.versioned)
        self._wire, self._most = wire, DIGITS_MAX if self.plain else KEY_TEXT_MAX
        self._shapes = None if wire.names else _Shapes(wire.opening, wire.closing, 0, self.line)

    def __missing__(self, length: int) -> tuple[bytes, bytes, _Shapes]:
        wire, stem = self._wire, self.stem
        if length > self._most:
            raise IndexError(length)
        shapes = self._shapes
        if shapes is None:
            shapes = _Shapes(wire.opening, wire.closing + stem, length, self.line)
        form = self[length] = wire.before(len(stem) + length) + stem, wire.behind, shapes
        return form


def straight(usual: Usual, wire: Wire, standing: Trusted, trust: Any) -> Ask:
    """The hit path of one entity by way of `wire`. An answer counts while `trust` is the one of `standing`."""
    entity, hits, breaker, names = usual.entity, usual.tally.hits.numbers, usual.breaker, wire.names
    begins, decode, render = entity.packer.prefix, entity.packer.decode, entity.template.render
    forms, sure = _Forms(wire, entity, usual.prefix), (0.0, b"")
    number, stem, skipped, line = int if forms.plain else None, forms.stem, forms.skipped, forms.line

    def due_later(due: bytes, began: float) -> bool:
        nonlocal sure  # a pair: of two threads one could else leave its horizon beside the other's end
        until = began + HORIZON_S
        sure = until, int(until * 1000 + usual.skew_ms).to_bytes(8, "big")
        return int.from_bytes(due, "big") > began * 1000 + usual.skew_ms

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
            start, version, floor, due, prefix, body, end = unpack(data)
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves a reply behind
            return usual.through(key, began, 0, _trusted, standing, trust, wire.again, rack, link, stem + text, error)
        if start != (opening + text + line if names else opening) or end != CRLF:
            return usual.through(key, began, 0, _trusted, standing, trust, wire.rest, rack, link, stem + text, data)
        rack.free.append(link)
        if rack.busy:
            rack.settle()
        if version >= floor and prefix == begins and standing.trust is trust:
            # The clock is not looked at each time: a second at once is compared.
            until, horizon = sure
            if (began < until and due > horizon) or due == _NEVER or due_later(due, began):
                try:
                    value = decode(body)
                except Exception:  # noqa: BLE001 - I12: the usual way finds out which, and what to do about it
                    return usual.through(key, began, 0, _itself, data[len(start) - 4 : -2])
                if not next(hits) & HIT_SAMPLE:
                    usual.sampled(key, data[len(start) - 4 : -2], time.monotonic() - began)
                return value
        return usual.through(key, began, 0, _trusted, standing, trust, _itself, data[len(start) - 4 : -2])

    return ask


def _trusted(standing: Trusted, trust: Any, way: Callable[..., bytes | None], *args: Any) -> bytes | None:
    raw = way(*args)
    return raw if standing.trust is trust else None


def _itself(raw: bytes) -> bytes:
    return raw
