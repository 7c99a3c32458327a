"""Races of read–apply–CAS against a real memcached, each as its order of events.

The coroutine of one client is stepped by hand: it stops before every round trip, and what happens
in between is done by another client, or to the server.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator, Iterator
from threading import Barrier, Thread
from typing import Any

import pytest

from cachelib.backends.memcached import Memcached
from cachelib.backends.memcached.link import SocketLink
from cachelib.backends.memcached.links import Counts
from cachelib.backends.memcached.node import Node
from cachelib.backends.memcached.replies import Reply
from cachelib.backends.memcached.settings import Settings, address_of
from cachelib.backends.memcached.transport import SocketLinks
from cachelib.envelope import decode, encode
from cachelib.errors import BadKey, CacheUnavailable
from cachelib.model import (
    NOTHING,
    Answer,
    BelowFloor,
    Claim,
    Claimed,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Leased,
    LeaseLost,
    NoOp,
    Op,
    Put,
    Raised,
    RaiseFloor,
    Release,
    Revoke,
    Revoked,
    Stored,
    Superseded,
    value_of,
)
from cachelib.overlap import Wait
from tests.servers.memcached import MemcachedServer
from tests.servers.process import ask

pytestmark = pytest.mark.server

NOW = 1_700_000_000_000
KEY = b"shop/e1.t1/customers:7"
TTL = 60_000
OLD, NEW, NEWER = value_of(b"old"), value_of(b"new"), value_of(b"newer")


def get(token: int) -> Get:
    return Get(token, hold_ms=30_000)


def put(content: Any, version: int) -> Put:
    return Put(content, version, "update", ttl_ms=TTL, stale_ttl_ms=TTL)


def raise_floor(version: int) -> RaiseFloor:
    return RaiseFloor(version, "update", stale_ttl_ms=TTL)


# --- a client that is stepped ----------------------------------------------------------------


@types.coroutine
def stop_before(request: bytes) -> Generator[bytes, None, None]:
    yield request


class SteppedLink:
    def __init__(self, link: SocketLink) -> None:
        self.link = link

    async def roundtrip(self, request: bytes, replies: int) -> list[Reply]:
        await stop_before(request)
        return await self.link.roundtrip(request, replies)


class SteppedLinks:
    def __init__(self, links: SocketLinks) -> None:
        self._links = links

    async def take(self, *, fresh: bool = False) -> SteppedLink:
        return SteppedLink(await self._links.take(fresh=fresh))

    def give_back(self, link: SteppedLink) -> None:
        self._links.give_back(link.link)

    def drop(self, link: SteppedLink, error: BaseException) -> None:
        self._links.drop(link.link, error)


class Client:
    """Calls of its own kind, each stopped before every round trip."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.counts, chosen = Counts(), Settings.of(settings)
        self._links = SocketLinks(address_of(url), chosen, self.counts)
        self.node = Node(SteppedLinks(self._links), chosen, self.counts)

    def execute(self, op: Op, key: bytes = KEY) -> Call:
        return Call(self.node.execute(key, op, NOW))

    def warm(self) -> None:
        """Open a connection, and leave it idle."""
        Call(self.node.get_many([KEY])).finish()

    def close(self) -> None:
        self._links.close()


class Call:
    """A call that stands before its first round trip."""

    def __init__(self, steps: Coroutine[Any, Any, Any]) -> None:
        self._steps = steps
        self.ended = False
        self.next = b""
        """The request that stands before it."""
        self._send()

    def step(self) -> None:
        """Do the round trip, and stop before the next."""
        assert not self.ended
        self._send()

    def finish(self) -> Any:
        """Run to the end."""
        while not self.ended:
            self.step()
        return self.answer

    def close(self) -> None:
        """Leave it where it stands."""
        self._steps.close()

    def _send(self) -> None:
        try:
            while isinstance(stop := self._steps.send(None), Wait):
                pass  # of the link below: let go on, it blocks in its socket until the answer is there
            self.next = stop
        except StopIteration as done:
            self.ended, self.answer = True, done.value


def stopped_before_write(client: Client, op: Op) -> Call:
    call = client.execute(op)
    call.step()
    assert call.next[:3] in (b"ms ", b"md "), call.next
    return call


@pytest.fixture
def slow(memcached_url: str) -> Iterator[Client]:
    client = Client(memcached_url)
    yield client
    client.close()


@pytest.fixture
def other(memcached_url: str) -> Iterator[Memcached]:
    backend = Memcached(memcached_url)
    yield backend
    backend.close()


def do(backend: Memcached, *ops: Op, key: bytes = KEY) -> Answer:
    """Several operations of another client; the last one's answer."""
    return [backend.execute(key, op, NOW) for op in ops][-1]


def item(backend: Memcached) -> Item | None:
    raw = backend.get(KEY)
    return None if raw is None else decode(raw)


def kept(backend: Memcached) -> Item:
    found = item(backend)
    assert found is not None
    return found


def evict(server: MemcachedServer) -> None:
    """The server drops it, as it may at any time."""
    server.flush()


# --- two at once -----------------------------------------------------------------------------


def test_writer_that_lost_the_cas_race_reads_again(slow: Client, other: Memcached) -> None:
    do(other, get(1), Fill(1, OLD, 1, TTL))
    older = stopped_before_write(slow, put(NEW, 2))
    assert do(other, put(NEWER, 3)) == Stored()
    assert older.finish() == Superseded()
    assert kept(other).content == NEWER
    assert slow.counts.read() == {"cas_lost": 1}


def test_newer_writer_that_lost_the_cas_race_still_stores(slow: Client, other: Memcached) -> None:
    do(other, get(1), Fill(1, OLD, 1, TTL))
    newer = stopped_before_write(slow, put(NEWER, 3))
    assert do(other, put(NEW, 2)) == Stored()
    assert newer.finish() == Stored()
    assert kept(other).content == NEWER


def test_fill_does_not_overtake_a_raise_between_its_read_and_its_write(slow: Client, other: Memcached) -> None:
    do(other, get(1))
    fill = stopped_before_write(slow, Fill(1, OLD, 1, TTL))
    assert do(other, raise_floor(2)) == Raised()
    assert fill.finish() == BelowFloor(2)
    assert not kept(other).fresh


def test_reader_that_lost_the_race_to_create_is_held(slow: Client, other: Memcached) -> None:
    late = stopped_before_write(slow, get(1))
    assert do(other, get(2)) == Leased(2, Item())
    assert isinstance(late.finish(), Held)
    assert kept(other).lease == 2


def test_item_evicted_between_read_and_cas_takes_no_fill(
    slow: Client, other: Memcached, memcached_server: MemcachedServer
) -> None:
    do(other, get(1))
    fill = stopped_before_write(slow, Fill(1, OLD, 1, TTL))
    evict(memcached_server)
    assert fill.finish() == LeaseLost()  # I2
    assert item(other) is None


def test_late_put_into_a_slot_evicted_after_its_read_is_refused(
    slow: Client, other: Memcached, memcached_server: MemcachedServer
) -> None:
    do(other, get(1), Fill(1, OLD, 1, TTL))
    late = stopped_before_write(slow, put(NEW, 2))
    evict(memcached_server)
    assert late.finish() == NoOp()  # I2
    assert item(other) is None


def test_item_deleted_and_made_anew_behind_a_fill_is_not_its_own(slow: Client, other: Memcached) -> None:
    do(other, get(1))
    fill = stopped_before_write(slow, Fill(1, OLD, 1, TTL))
    assert do(other, Revoke(TTL)) == Revoked()
    assert do(other, get(2)) == Leased(2, item_of_revoked())
    assert fill.finish() == LeaseLost()  # I4
    assert kept(other).lease == 2


def item_of_revoked() -> Item:
    return Item(void=True, expires_ms=NOW + 4 * 30_000)


# --- who is beaten in every round gives way (I14) --------------------------------------------


RAISES = [raise_floor(version) for version in range(1, 10)]


def beaten(client: Client, other: Memcached, op: Op, tries: int) -> Call:
    """Between each read and its write the other one raises the floor, which leaves lease and content."""
    call = client.execute(op)
    for raised in RAISES[:tries]:
        call.step()
        assert call.next.startswith(b"ms "), call.next
        assert do(other, raised) == Raised()
        call.step()
    return call


@pytest.fixture
def patient(memcached_url: str) -> Iterator[Client]:
    client = Client(memcached_url, cas_tries=3)
    yield client
    client.close()


@pytest.mark.parametrize("op", [put(NEW, 50), raise_floor(50), Revoke(TTL)], ids=lambda op: type(op).__name__)
def test_beaten_writer_deletes_the_item(patient: Client, other: Memcached, op: Op) -> None:
    do(other, get(1))
    call = beaten(patient, other, op, tries=3)
    assert call.next == b"md %b k\r\n" % KEY
    assert call.finish() == Revoked()
    assert item(other) is None
    assert patient.counts.read() == {"cas_lost": 3, "gave_way": 1}


@pytest.mark.parametrize(
    ("op", "answer"),
    [(Fill(1, NEW, 50, TTL), LeaseLost()), (Release(1), NoOp()), (Claim(7, 30_000), Claimed())],
    ids=["Fill", "Release", "Claim"],
)
def test_beaten_reader_leaves_the_item(patient: Client, other: Memcached, op: Op, answer: Answer) -> None:
    do(other, get(1))
    call = beaten(patient, other, op, tries=3)
    assert call.ended
    assert call.answer == answer
    assert kept(other).lease == 1


def test_beaten_get_is_held_for_a_moment(patient: Client, other: Memcached) -> None:
    do(other, get(1), Release(1))
    held = beaten(patient, other, get(2), tries=3).finish()
    assert isinstance(held, Held)
    assert held.retry_after_ms < 100


# --- the server restarts ---------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


@pytest.fixture
def a(own_server: MemcachedServer) -> Iterator[Client]:
    client = Client(own_server.url)
    yield client
    client.close()


@pytest.fixture
def b(own_server: MemcachedServer) -> Iterator[Memcached]:
    backend = Memcached(own_server.url)
    yield backend
    backend.close()


def restart_and_lease(server: MemcachedServer, b: Memcached, call: Call) -> None:
    """The server loses everything and counts its CAS ids anew; B's lease brings the id back that `call` names."""
    server.kill()
    server.start()
    assert do(b, get(2)) == Leased(2, Item())
    told = ask(server.port, b"mg %b c\r\n" % KEY).split(b" c")[1].split()[0]
    assert b" C%b " % told in call.next, "the id did not come back: the test would show nothing"


def test_fill_read_before_a_restart_does_not_land_after_it(
    own_server: MemcachedServer, a: Client, b: Memcached
) -> None:
    # A has the lease and has read the item, id 1 · the server restarts · B has the lease, its item
    # has id 1 · A's write names id 1, and what A loaded may be older than what B will load.
    do(b, get(1))
    fill = stopped_before_write(a, Fill(1, OLD, 1, TTL))
    restart_and_lease(own_server, b, fill)
    with pytest.raises(CacheUnavailable):
        fill.finish()
    assert kept(b).lease == 2  # I14
    assert kept(b).content == NOTHING


def test_naive_write_over_another_connection_would_land(own_server: MemcachedServer, a: Client, b: Memcached) -> None:
    do(b, get(1))
    fill = stopped_before_write(a, Fill(1, OLD, 1, TTL))
    restart_and_lease(own_server, b, fill)
    assert ask(own_server.port, fill.next) == b"HD k%b\r\n" % KEY
    assert kept(b).content == OLD
    fill.close()


def test_raise_is_applied_to_what_is_there_after_a_restart(
    own_server: MemcachedServer, a: Client, b: Memcached
) -> None:
    do(b, get(1))
    raised = stopped_before_write(a, raise_floor(5))
    restart_and_lease(own_server, b, raised)
    assert raised.finish() == Raised()
    assert (kept(b).lease, kept(b).floor) == (2, 5)
    assert a.counts.read() == {"reconnected": 1}


def test_read_is_repeated_where_the_idle_connection_died(own_server: MemcachedServer, a: Client, b: Memcached) -> None:
    do(b, get(1))
    a.warm()
    own_server.kill()
    own_server.start()
    assert a.execute(Fill(1, OLD, 1, TTL)).finish() == LeaseLost()
    assert a.counts.read() == {"reconnected": 1}


def test_notes_are_not_kept_where_the_server_restarted_behind_the_batch(
    own_server: MemcachedServer, a: Client, b: Memcached
) -> None:
    # Else the new server would carry a position that only the old one had reached.
    do(b, get(1))
    call = Call(a.node.apply([(KEY, raise_floor(5))], {b"position": b"17"}, NOW))
    call.step()
    call.step()
    assert call.next == b"ms position 2 k T0\r\n17\r\n"
    own_server.kill()
    own_server.start()
    with pytest.raises(CacheUnavailable):
        call.finish()
    assert b.read_notes([b"position"]) == [None]  # I11


def test_batch_with_notes_changes_no_connection_in_its_middle(
    own_server: MemcachedServer, a: Client, b: Memcached
) -> None:
    do(b, get(1))
    call = Call(a.node.apply([(KEY, raise_floor(5))], {b"position": b"17"}, NOW))
    call.step()
    own_server.kill()
    own_server.start()
    (error,) = call.finish()
    assert isinstance(error, CacheUnavailable)
    assert b.read_notes([b"position"]) == [None]


def test_notes_are_not_kept_behind_an_operation_that_failed(slow: Client, other: Memcached) -> None:
    results = Call(slow.node.apply([(b"a b", raise_floor(5)), (KEY, get(1))], {b"position": b"17"}, NOW)).finish()
    assert isinstance(results[0], BadKey)
    assert results[1] == Leased(1, Item())
    assert other.read_notes([b"position"]) == [None]


# --- bytes that nobody can read (I12) --------------------------------------------------------

LATER_FORMAT = b"\xca\x02" + encode(Item(OLD, known=True, version=1, floor=1, expires_ms=NOW + TTL))[2:]


def plant(server: MemcachedServer, raw: bytes) -> None:
    assert ask(server.port, b"ms %b %d T600\r\n%b\r\n" % (KEY, len(raw), raw)) == b"HD\r\n"


@pytest.mark.parametrize("op", [raise_floor(2), Revoke(TTL), put(NEW, 2)], ids=lambda op: type(op).__name__)
def test_write_deletes_an_item_of_a_later_format(other: Memcached, memcached_server: MemcachedServer, op: Op) -> None:
    # In a rolling deploy it is fresh to those who can read it: to leave it would serve them the old value.
    plant(memcached_server, LATER_FORMAT)
    assert do(other, op) == NoOp()
    assert other.get(KEY) is None


def test_item_of_a_later_format_that_came_in_between_is_deleted_too(
    slow: Client, other: Memcached, memcached_server: MemcachedServer
) -> None:
    do(other, get(1))
    raised = stopped_before_write(slow, raise_floor(2))
    plant(memcached_server, LATER_FORMAT)
    assert raised.finish() == NoOp()
    assert other.get(KEY) is None


def test_reader_leases_over_bytes_that_it_cannot_read(
    slow: Client, other: Memcached, memcached_server: MemcachedServer
) -> None:
    plant(memcached_server, b"no item")
    lease = stopped_before_write(slow, get(1))
    assert b" C" in lease.next  # over what was read, and nothing else
    plant(memcached_server, LATER_FORMAT)
    assert lease.finish() == Leased(1, Item())
    assert slow.counts.read() == {"undecodable": 2, "cas_lost": 1}
    assert do(other, Fill(1, OLD, 1, TTL)) == Stored()


# --- many at once ----------------------------------------------------------------------------


def test_of_200_threads_one_gets_the_lease(other: Memcached) -> None:
    threads_max, answers = 200, []
    ready = Barrier(threads_max)

    def read(token: int) -> None:
        ready.wait()
        answers.append(do(other, get(token)))

    threads = [Thread(target=read, args=(token,)) for token in range(1, threads_max + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (leased,) = [answer for answer in answers if not isinstance(answer, Held)]
    assert isinstance(leased, Leased)
    assert len(answers) == threads_max
    assert do(other, Fill(leased.token, OLD, 1, TTL)) == Stored()
    assert isinstance(do(other, get(1)), Hit)
