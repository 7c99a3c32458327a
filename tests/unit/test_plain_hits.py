"""When a header is a plain hit, at every boundary of its fields: the quick readers against the rules of `item.py`.

A call for the rule in each reader would cost as much as the reading, so it stands in each (`envelope.py`); what follows
goes through all of them with every header in question. Exhaustive, so a boundary that is off by one is found each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from cachelib import Entity
from cachelib.breaker import Breaker
from cachelib.codecs import Packer
from cachelib.envelope import (
    DOUBT,
    FEW,
    FLOOR_GONE,
    HEADER,
    KNOWN,
    MAGIC,
    decode,
    plain_hit,
    plain_reader,
    plain_values,
)
from cachelib.errors import DecodeError
from cachelib.item import serves
from cachelib.lane import Anybody
from cachelib.metrics import Metrics
from cachelib.model import ANY, U64_MAX, Kind
from cachelib.straight import HORIZON_S, straight
from tests.unit.test_straight import KINDS, LEFT, PREFIX, Line, reply

BEGAN_S = 1024.0
NOW_MS = 1_700_000_000_000
ORDERS = [0, 1, 255, 256, 2**63 - 1, 2**63, U64_MAX - 1, U64_MAX]
DUES = [0, 1, 255, 256, NOW_MS - 1, NOW_MS, NOW_MS + 1, 2**63, U64_MAX]
UNSEEN = [(0, 0, 0, 0, 0), (U64_MAX,) * 5]
"""as_of, lease, lease_until, stale_until, expires: nobody may mind them."""
BODY = b"value"
PACKER = Packer("bytes")


def rule(raw: bytes, now_ms: float) -> bool:
    """Serves everybody and is not due: from `item.py`. What a delete set the floor of is left to the long way."""
    try:
        item = decode(raw)
    except DecodeError:
        return False
    due = item.soft_expire_ms != 0 and now_ms >= item.soft_expire_ms
    return item.content.kind is Kind.VALUE and serves(item, ANY) and not due and not item.floor_gone


def item_of(magic: int, zero: int, flags: int, version: int, floor: int, soft: int, unseen: tuple[int, ...]) -> bytes:
    payload = PACKER.prefix + BODY if flags & 3 == Kind.VALUE else b""
    return HEADER.pack(magic, zero, flags, version, floor, soft, *unseen) + payload


def words() -> Iterator[bytes]:
    """Every first word that one wrong byte makes, and every byte of flags: each with a fresh item's numbers."""
    for flags, version in product(range(256), (5, 4)):
        yield item_of(MAGIC, 0, flags, version, 5, 0, UNSEEN[0])
    for magic, zero in product((MAGIC - 256, MAGIC - 1, MAGIC, MAGIC + 1, MAGIC + 256, 0, 0xFFFF), (0, 1, 255)):
        for flags in (Kind.VALUE, Kind.VALUE | KNOWN, Kind.VALUE | FLOOR_GONE):
            yield item_of(magic, zero, flags, 5, 5, 0, UNSEEN[0])


def numbers() -> Iterator[bytes]:
    """Every pair of version and floor with every time it is due, known and unknown."""
    for known, version, floor, due, unseen in product((0, KNOWN), ORDERS, ORDERS, DUES, UNSEEN):
        yield item_of(MAGIC, 0, Kind.VALUE | known, version, floor, due, unseen)


HEADERS = [*words(), *numbers()]


def test_the_short_test_of_a_hit() -> None:
    wrong = [raw.hex() for raw in HEADERS if plain_hit(raw, NOW_MS) != rule(raw, NOW_MS)]
    assert not wrong, wrong[:5]


def test_the_reader_of_one() -> None:
    read = plain_reader(PACKER.prefix, PACKER.decode, PACKER.unpack)
    wrong = [raw.hex() for raw in HEADERS if read(raw, NOW_MS) != (BODY if rule(raw, NOW_MS) else DOUBT)]
    assert not wrong, wrong[:5]


def test_the_reader_of_many_one_by_one_and_by_columns() -> None:
    fresh = item_of(MAGIC, 0, Kind.VALUE, 5, 5, 0, UNSEEN[0])
    wrong = []
    for raw in HEADERS:
        hit = rule(raw, NOW_MS)
        value = BODY if hit else None
        for beside in ([], [fresh] * FEW):  # the more they are, the sooner they are read by columns
            values, others = plain_values([*beside, raw], NOW_MS, PACKER.prefix, PACKER.decode)
            if values != [*[BODY] * len(beside), value] or others != ([] if hit else [len(beside)]):
                wrong.append(raw.hex())
        every = [raw] * (FEW + 1)
        if plain_values(every, NOW_MS, PACKER.prefix, PACKER.decode) != (
            [value] * len(every),
            [] if hit else [*range(len(every))],
        ):
            wrong.append(raw.hex())
    assert not wrong, wrong[:5]


class Usual:
    """What `straight` needs of a lane; whatever it does not take for a plain hit is LEFT."""

    prefix, breaker, skew_ms = PREFIX, Breaker(), NOW_MS - BEGAN_S * 1000

    def __init__(self, *, versioned: bool) -> None:
        table = "orders" if versioned else None
        self.entity = Entity("order:{id:int}", table=table, load=lambda tx, keys: {}, codec="bytes")
        assert self.entity.versioned == versioned
        self.tally = Metrics().tally("order")

    def look(self, *_: Any) -> Any:
        raise AssertionError("it has a free link")

    def through(self, *_: Any) -> Any:
        return LEFT

    def sampled(self, *_: Any) -> None:
        pass


def due(due_ms: int) -> bytes:
    return item_of(MAGIC, 0, Kind.VALUE, 5, 5, due_ms, UNSEEN[0])


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_straight_way(kind: str, versioned: bool) -> None:
    """It takes what its entity writes, known or unknown."""
    answer = b""
    line = Line(kind, lambda: answer)
    ask = straight(Usual(versioned=versioned), line, Anybody(), None)  # type: ignore[arg-type]
    wrong = []
    for raw in HEADERS:
        answer, line.rack.free = reply(kind, PREFIX + b"order:7", raw), [line.link]
        hit = rule(raw, NOW_MS) and decode(raw).known == versioned
        if ask(7, BEGAN_S) != (BODY if hit else LEFT):
            wrong.append(raw.hex())
    assert not wrong, wrong[:5]


LATER_S = (0.0, HORIZON_S / 2, HORIZON_S - 2**-10, HORIZON_S, HORIZON_S + 2**-10, 2 * HORIZON_S)


@pytest.mark.parametrize("fraction_ms", [0.0, 0.5, 0.999])
def test_the_straight_way_looks_at_what_is_due_again_in_time(fraction_ms: float) -> None:
    """After a look at the clock it knows for `HORIZON_S` what cannot be due: to the millisecond, and no longer."""
    answer = b""
    line = Line("redis", lambda: answer)
    usual = Usual(versioned=False)
    usual.skew_ms += fraction_ms
    wrong = []
    for later_s, around_s, by_ms in product(LATER_S, LATER_S, (-1, 0, 1, 2)):
        ask = straight(usual, line, Anybody(), None)  # type: ignore[arg-type]
        for began_s, due_ms in ((0.0, NOW_MS + 1), (later_s, int(NOW_MS + around_s * 1000) + by_ms)):  # the first looks
            answer, line.rack.free = reply("redis", b"", due(due_ms)), [line.link]
            hit = rule(due(due_ms), NOW_MS + fraction_ms + began_s * 1000)
            if ask(7, BEGAN_S + began_s) != (BODY if hit else LEFT):
                wrong.append((later_s, due_ms - NOW_MS))
    assert not wrong, wrong[:5]
