"""The meta commands as bytes. The reader must not care how the network cuts them."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.backends.memcached import replies as stream
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.link import SocketLink
from cachelib.backends.memcached.links import Counts
from cachelib.backends.memcached.replies import Reply, ReplyReader
from cachelib.backends.memcached.settings import Settings
from cachelib.backends.memcached.transport import SocketLinks
from cachelib.backends.memcached.wire import Found, Wrote
from cachelib.errors import BadKey, CacheUnavailable, ProtocolError

NAME = b"shop/e1.t1/customers:7"


def read(data: bytes, wanted: int, cuts: list[int] | None = None) -> list[Reply] | None:
    """The replies in `data`, received in pieces; None while some are missing. Bytes behind them are an error."""
    reader = ReplyReader(wanted)
    ends = [*sorted({cut % (len(data) + 1) for cut in cuts or []}), len(data)]
    complete, start = False, 0
    for end in ends:
        piece, start = data[start:end], end
        if piece:
            complete = reader.whole(piece)
    return reader.replies if complete else None


# --- any chunking gives the same replies -----------------------------------------------------

flags = st.lists(st.from_regex(rb"\A[a-zA-Z][!-~]{0,8}\Z"), max_size=4)
without_value = st.builds(Reply, st.sampled_from([b"HD", b"EN", b"NS", b"EX", b"NF", b"MN"]), flags, st.none())
tricky = st.sampled_from([b"", b"\r\n", b"\r", b"\n", b"MN\r\n", b"END\r\n", b"VA 5 kx\r\n", b"EN\r\n", b"HD\r\n\r\n"])
with_value = st.builds(Reply, st.just(b"VA"), flags, st.binary(max_size=300) | tricky)
refusal = st.builds(Reply, st.just(b"SERVER_ERROR"), st.just([b"object too large for cache"]), st.none())
stats = st.builds(Reply, st.just(b"END"), st.lists(st.just(b"STAT pid 17"), min_size=1, max_size=5), st.none())
replies = st.lists(without_value | with_value | refusal | stats, min_size=1, max_size=6)
cuts = st.lists(st.integers(0, 5000), max_size=30)


def told(reply: Reply) -> bytes:
    """The bytes in which a server tells this reply."""
    if reply.code == b"END":
        return b"".join(line + b"\r\n" for line in reply.flags) + b"END\r\n"
    if reply.value is None:
        return b" ".join((reply.code, *reply.flags)) + b"\r\n"
    size = str(len(reply.value)).encode()
    return b" ".join((reply.code, size, *reply.flags)) + b"\r\n" + reply.value + b"\r\n"


@given(replies, cuts)
def test_any_chunking_gives_the_same_replies(expected: list[Reply], cuts: list[int]) -> None:
    data = b"".join(told(reply) for reply in expected)
    assert read(data, len(expected), cuts) == expected
    assert read(data, len(expected), list(range(len(data)))) == expected


@given(replies, st.integers(1, 400))
def test_incomplete_replies_are_waited_for(expected: list[Reply], missing: int) -> None:
    data = b"".join(told(reply) for reply in expected)
    assert read(data[: max(0, len(data) - missing)], len(expected)) is None


@given(replies, st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_last_reply_are_an_error(expected: list[Reply], more: bytes) -> None:
    data = b"".join(told(reply) for reply in expected)
    reader = ReplyReader(len(expected))
    with pytest.raises(ProtocolError):
        reader.whole(data + more)


def outcome(data: bytes, wanted: int, cuts: list[int]) -> object:
    try:
        return read(data, wanted, cuts)
    except ProtocolError:
        return ProtocolError


alphabet = st.lists(
    st.sampled_from(
        [b"VA", b"HD", b"EN", b"STAT", b"END", b"ERROR", b" ", b"\r\n", b"\r", b"\n", b"0", b"3", b"-1", b"k"]
    )
    | st.binary(max_size=4),
    max_size=25,
).map(b"".join)


@given(alphabet | st.binary(max_size=200), st.integers(1, 3), cuts)
def test_garbage_is_an_error_or_incomplete_however_it_is_cut(data: bytes, wanted: int, cuts: list[int]) -> None:
    assert outcome(data, wanted, cuts) == outcome(data, wanted, [])


@pytest.mark.parametrize(
    "data",
    [
        b"ERROR\r\n",
        b"CLIENT_ERROR bad data chunk\r\n",
        b"\r\n",
        b"VA\r\n",
        b"VA -1 kx\r\n",
        b"VA +1 kx\r\nx\r\n",
        b"VA 1_0 kx\r\n0123456789\r\n",
        b"VA 99999999999999999999 kx\r\n",
        b"VA 1073741825 kx\r\n",
        b"VA 1 kx\r\nxyz\r\n",
        b"va 1 kx\r\nx\r\n",
        b"HD\n\r\n",
        b"END\r\n",
        b"STAT pid 1\r\nHD\r\n",
        b"STAT pid 1\r\nVA 1\r\nx\r\n",
        b"x" * (stream.LINE_BYTES_MAX + 2),
        b"HD " + b"x" * stream.LINE_BYTES_MAX + b"\r\n",
        b"STAT a b\r\n" * (stream.STATS_MAX + 1),
        b"\x80\x00\x00\x00",
    ],
)
def test_unknown_replies_are_an_error(data: bytes) -> None:
    if data == b"\x80\x00\x00\x00":
        assert read(data, 1) is None  # perhaps a line; there is a time for it to end in
        data += b"\r\n"
    with pytest.raises(ProtocolError):
        read(data, 1)


# --- the short way ---------------------------------------------------------------------------


def got(pieces: list[bytes]) -> bytes | None:
    """What the hit path makes of a reply that comes in these pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        links = SocketLinks(("nowhere", 1), Settings(), Counts())
        link = SocketLink(ours, ("nowhere", 1), 1.0, 0)
        waiting = [*pieces, b""]
        link.receive = lambda size: waiting.pop(0)  # type: ignore[method-assign]
        links.give_back(link)
        value = links.get(NAME)
        assert waiting == [b""]
        assert links.rack.free == [link]
        return value


@given(st.binary(max_size=400) | st.integers(0, 5000).map(bytes) | tricky, st.lists(st.integers(1, 5000), max_size=3))
def test_the_hit_path_reads_a_value_however_it_is_cut(value: bytes, cuts: list[int]) -> None:
    data = told(Reply(b"VA", [b"k" + NAME], value))
    ends = [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    assert got([data[start:end] for start, end in zip([0, *ends], ends, strict=False)]) == value


@pytest.mark.parametrize("data", [b"EN\r\n", b"EN k" + NAME + b"\r\n"])
def test_the_hit_path_reads_a_miss(data: bytes) -> None:
    assert got([data]) is None


@given(alphabet | st.binary(max_size=100))
def test_the_hit_path_reads_no_value_from_garbage(data: bytes) -> None:
    try:
        assert got([data]) is None
    except CacheUnavailable:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"VA 2 kanother\r\nhi\r\n",
        b"VA 2\r\nhi\r\n",
        b"VA 2 k" + NAME + b"x\r\nhi\r\n",
        b"VA 4 k" + NAME + b"\r\nhi\r\n",
        b"VA 2 k" + NAME + b"\r\nhi\r\nEN\r\n",
        b"EN\r\nEN\r\n",
        b"EN kanother\r\n",
        b"",
    ],
)
def test_the_hit_path_takes_no_other_reply(data: bytes) -> None:
    with pytest.raises(CacheUnavailable):
        got([data])


# --- what replies mean -----------------------------------------------------------------------


def test_value_of_another_name_is_refused() -> None:
    other = Reply(b"VA", [b"kanother", b"c1"], b"hi")
    for ask in (wire.value, wire.found):
        with pytest.raises(ProtocolError):
            ask(other, NAME)
    with pytest.raises(ProtocolError):
        wire.wrote(Reply(b"HD", [b"kanother"]), NAME)


def test_item_marked_as_stale_by_hand_is_a_miss() -> None:
    stale = Reply(b"VA", [b"k" + NAME, b"c7", b"X", b"W"], b"hi")
    assert wire.value(stale, NAME) is None
    assert wire.found(stale, NAME) == Found(b"", b"7")


@pytest.mark.parametrize("flags", [[], [b"c7"], [b"k" + NAME], [b"k" + NAME, b"c"], [b"k" + NAME, b"t7"]])
def test_item_without_its_name_or_cas_id_is_refused(flags: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        wire.found(Reply(b"VA", flags, b"hi"), NAME)


def test_write_is_done_lost_or_refused() -> None:
    key = [b"k" + NAME]
    assert wire.wrote(Reply(b"HD", key), NAME) is Wrote.DONE
    assert {wire.wrote(Reply(code, key), NAME) for code in (b"NS", b"EX", b"NF")} == {Wrote.LOST}
    assert wire.wrote(Reply(b"SERVER_ERROR", [b"object too large for cache"]), NAME) is Wrote.TOO_LARGE
    assert wire.wrote(Reply(b"SERVER_ERROR", [b"out of memory storing object"]), NAME) is Wrote.OUT_OF_MEMORY
    for odd in (Reply(b"SERVER_ERROR", [b"on fire"]), Reply(b"EN", key), Reply(b"MN", []), Reply(b"HD", [])):
        with pytest.raises(ProtocolError):
            wire.wrote(odd, NAME)


def test_instance_names_process_and_start() -> None:
    lines = [b"STAT pid 17", b"STAT uptime 100", b"STAT time 1700000100", b"STAT version 1.6.18", b"STAT odd"]
    assert wire.instance(Reply(b"END", lines)) == "memcached-17-1700000000"
    with pytest.raises(ProtocolError):
        wire.instance(Reply(b"END", lines[1:]))


# --- requests --------------------------------------------------------------------------------

FORBIDDEN = [*range(0x21), 0x7F]


@pytest.mark.parametrize("byte", FORBIDDEN)
def test_forbidden_byte_in_a_name(byte: int) -> None:
    for name in (bytes([byte]), b"a%cb" % byte, b"a%c" % byte, b"%ca" % byte):
        with pytest.raises(BadKey, match="nothing was sent"):
            wire.check_name(name)


@pytest.mark.parametrize("name", [b"", b"x" * 251])
def test_name_of_a_wrong_length(name: bytes) -> None:
    with pytest.raises(BadKey):
        wire.check_name(name)


def test_all_other_bytes_may_stand_in_a_name() -> None:
    wire.check_name(bytes(set(range(256)) - set(FORBIDDEN)))
    wire.check_name(b"x" * 250)


@pytest.mark.parametrize(
    ("life_ms", "seconds"),
    [(-5, 2), (0, 2), (1, 2), (2000, 2), (2001, 3), (30 * 86_400_000, 2_592_000), (31 * 86_400_000, 2_592_000)],
)
def test_lives_are_rounded_up_and_kept_within_what_the_server_counts(life_ms: int, seconds: int) -> None:
    assert wire.ttl_seconds(life_ms) == seconds


def test_requests() -> None:
    assert wire.value_request(b"a") == b"mg a k v\r\n"
    assert wire.read_request(b"a") == b"mg a k v c\r\n"
    assert wire.write_request(b"a", b"\r\n", 9, b"12") == b"ms a 2 k C12 T9\r\n\r\n\r\n"
    assert wire.write_request(b"a", b"", 9, None) == b"ms a 0 k ME T9\r\n\r\n"
    assert wire.note_request(b"a", b"xy") == b"ms a 2 k T0\r\nxy\r\n"
    assert wire.delete_request(b"a") == b"md a k\r\n"
    assert wire.delete_request(b"a", b"7") == b"md a k C7\r\n"
