"""The straight way to a hit answers what the usual one does, and takes nothing else for a value."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachelib import Entity
from cachelib.backends.memcached.transport import SocketLinks
from cachelib.backends.redis.transport import Transport
from cachelib.breaker import Breaker
from cachelib.envelope import DOUBT, encode, plain_reader
from cachelib.lane import Anybody, Lane, Route
from cachelib.metrics import Metrics
from cachelib.model import Item, value_of
from cachelib.plans import NOT_ASKED
from cachelib.straight import NOTHING, SHAPES_MAX, Unserved
from tests.unit.test_envelope import ITEMS

KINDS: dict[str, Any] = {"redis": Transport, "memcached": SocketLinks}
PREFIX = b"lc/e.t/"
LEFT = b"left to the usual way"


def reply(kind: str, name: bytes, raw: bytes) -> bytes:
    """What a server answers that has these bytes."""
    if kind == "redis":
        return b"$%d\r\n%b\r\n" % (len(raw), raw)
    return b"VA %d k%b\r\n%b\r\n" % (len(raw), name, raw)


class Line:
    """A wire with one link, on which `answer` is received; it notes what was done."""

    def __init__(self, kind: str, answer: Callable[[], bytes]) -> None:
        like = KINDS[kind]
        self.behind, self.opening, self.closing, self.names = like.behind, like.opening, like.closing, like.names
        self.before = lambda length: like.before(None, length)
        self.sent: list[bytes] = []
        self.done: list[str] = []
        self.link = SimpleNamespace(send=self.sent.append, receive=lambda size: answer())
        self.rack = SimpleNamespace(free=[self.link], busy=False, settle=lambda: self.done.append("settled"))

    def get(self, name: bytes) -> bytes | None:
        self.done.append("get")
        return None

    def rest(self, rack: Any, link: Any, name: bytes, data: bytes) -> bytes | None:
        assert not rack.free
        self.done.append(f"rest of {name.decode()}")
        return LEFT

    def again(self, rack: Any, link: Any, name: bytes, error: BaseException) -> bytes | None:
        assert not rack.free
        self.done.append(f"again {name.decode()}")
        if not isinstance(error, OSError):
            raise error
        return None


def lane_over(line: Line, template: str = "order:{id:int}", **route: Any) -> Lane:
    entity = Entity(template, load=lambda tx, keys: {}, codec="bytes")
    return Lane(entity, Route(PREFIX, line.get, Breaker(), line, **route), Metrics().tally("order"), None)  # type: ignore[arg-type]


def item_bytes(item: Item, body: bytes) -> bytes:
    prefix = Entity("order:{id:int}", load=lambda tx, keys: {}, codec="bytes").packer.prefix
    return encode(item.but(content=value_of(prefix + body)) if item.content.payload else item)


@given(st.sampled_from([*KINDS]), ITEMS, st.binary(max_size=300), st.integers(-(10**25), 10**25))
@example("redis", Item(value_of(b"x"), version=5, floor=5), b"", 7)
@example("memcached", Item(value_of(b"x"), version=5, floor=5), b"\r\n" * 9, 10**20 - 1)
def test_it_answers_what_the_usual_way_does(kind: str, item: Item, body: bytes, key: int) -> None:
    raw = item_bytes(item, body)
    name = PREFIX + b"order:%d" % key
    line = Line(kind, lambda: reply(kind, name, raw))
    lane = lane_over(line)
    began = time.monotonic()
    found = lane.ask(key, began)
    expected = plain_reader(lane.packer.prefix, lane.packer.decode, lane.packer.unpack)(
        raw, began * 1000 + lane.skew_ms
    )
    if not -(10**19) < key < 10**20:
        assert (found, line.done) == (NOTHING, ["get"])
    elif expected is DOUBT or item.known:  # its entity has no versions
        assert isinstance(found, Unserved)
        assert found.raw in (raw, LEFT)  # the shortest are left to the usual way
    else:
        assert found == expected
        assert (line.done, line.rack.free) == ([], [line.link])
        assert lane.tally.hits.value == 1
        head = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name) if kind == "redis" else b"mg %b k v\r\n" % name
        assert line.sent == [head]


FRESH = Item(value_of(b"x"), version=5, floor=5)


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=40), st.data())
def test_what_is_not_one_whole_value_is_left_to_the_usual_way(kind: str, body: bytes, data: st.DataObject) -> None:
    name = PREFIX + b"order:7"
    whole = reply(kind, name, item_bytes(FRESH, body))
    other = reply(kind, PREFIX + b"order:8", item_bytes(FRESH, body))
    cut = data.draw(st.integers(0, len(whole) - 1))
    others = (b"", b"$-1\r\n", b"EN\r\n")
    for bad in (whole[:cut], whole + b"\r\n", whole + whole, whole[:-2] + b"xx", whole[:-1] + b"\r", *others):
        line = Line(kind, lambda bad=bad: bad)  # type: ignore[misc]
        found = lane_over(line).ask(7, time.monotonic())
        assert isinstance(found, Unserved)
        assert (found.raw, line.done) == (LEFT, ["rest of lc/e.t/order:7"])
    if kind == "memcached":
        line = Line(kind, lambda: other)
        assert lane_over(line).ask(7, time.monotonic()).raw == LEFT


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_that_broke_is_not_given_back(kind: str) -> None:
    def broken() -> bytes:
        raise ConnectionResetError

    line = Line(kind, broken)
    assert lane_over(line).ask(7, time.monotonic()).raw is None
    assert (line.done, line.rack.free) == (["again lc/e.t/order:7"], [])


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_is_raised_and_the_link_not_given_back(kind: str) -> None:
    def interrupted() -> bytes:
        raise KeyboardInterrupt

    line = Line(kind, interrupted)
    with pytest.raises(KeyboardInterrupt):
        lane_over(line).ask(7, time.monotonic())
    assert (line.done, line.rack.free) == (["again lc/e.t/order:7"], [])


def test_what_another_start_of_the_server_answered_counts_for_nothing() -> None:
    raw = item_bytes(FRESH, b"v")
    line = Line("redis", lambda: reply("redis", b"", raw))
    standing = Anybody()
    lane = lane_over(line, standing=standing)
    assert lane.ask(7, time.monotonic()) == b"v"
    standing.trust = object()  # type: ignore[assignment]
    assert lane.ask(7, time.monotonic()).raw is None
    assert line.rack.free == [line.link]


def test_whoever_waits_for_a_link_is_told() -> None:
    line = Line("redis", lambda: reply("redis", b"", item_bytes(FRESH, b"v")))
    line.rack.busy = True
    assert lane_over(line).ask(7, time.monotonic()) == b"v"
    assert line.done == ["settled"]


def test_a_node_that_failed_is_not_asked_here() -> None:
    line = Line("redis", lambda: b"")
    lane = lane_over(line)
    lane.breaker.failed_at(0)
    assert lane.ask(7, time.monotonic()).raw is NOT_ASKED
    assert line.sent == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("template", "key", "text"),
    [
        ("order:{id:int}", "7", b"order:7"),
        ("order:{id}", "a b", b"order:a%20b"),
        ("stock:{shop}:{item}", (1, "x"), b"stock:1:x"),
        ("o" * 100 + ":{id:int}", 7, b"o" * 100 + b":7"),
    ],
)
def test_any_key_goes_its_way(kind: str, template: str, key: Any, text: bytes) -> None:
    raw = item_bytes(FRESH, b"v")
    line = Line(kind, lambda: reply(kind, PREFIX + text, raw))
    assert lane_over(line, template).ask(key, time.monotonic()) == b"v"


def test_lengths_of_replies_are_not_remembered_without_end() -> None:
    sizes = iter(range(2 * SHAPES_MAX + 50))
    line = Line("redis", lambda: reply("redis", b"", item_bytes(FRESH, bytes(next(sizes)))))
    lane = lane_over(line)
    for size in range(2 * SHAPES_MAX + 50):
        assert lane.ask(7, time.monotonic()) == bytes(size)
    (forms,) = [
        cell.cell_contents
        for cell in lane.ask.__closure__ or ()
        if type(cell.cell_contents).__name__ == "_Forms"  # type: ignore[attr-defined]
    ]
    assert all(len(shapes) <= SHAPES_MAX for _, _, shapes in forms.values())
