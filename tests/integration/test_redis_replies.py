"""Replies that the protocol does not know are no answers (I12), and errors of one chunk stay with it."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest
from redis.exceptions import NoScriptError, ReadOnlyError

from cachelib.backends.redis import Redis
from cachelib.backends.redis.ops import answer, pack
from cachelib.backends.redis.talks import Script, Talks
from cachelib.errors import CacheUnavailable, ProtocolError
from cachelib.model import Get, Item, Leased, NoOp, Revoke

NOW_MS = 1_700_000_000_000
GET = Get(7, 30_000)
STRANGE = {
    "nothing": "return {}",
    "one too many": "return {13, 13}",
    "no list": "return 13",
    "text": "return {'13'}",
    "a number nobody gave": "return {99}",
    "zero": "return {0}",
    "a hit that is no item": "return {{1, 'short'}}",
    "a hit without bytes": "return {1}",
    "three parts": "return {{2, '', ''}}",
    "nil": "return {false}",
}


@pytest.mark.parametrize("what", STRANGE)
def test_strange_reply_is_unavailable_and_no_value(what: str) -> None:
    backend = Redis.from_client(fakeredis.FakeRedis(), script=Script(STRANGE[what].encode()))
    with pytest.raises(ProtocolError):
        backend.execute(b"k", GET, NOW_MS)
    with pytest.raises(ProtocolError):
        backend.execute_many([(b"k", GET)], NOW_MS)
    backend.close()


def test_lease_that_was_not_asked_for_is_no_answer() -> None:
    with pytest.raises(ProtocolError):
        answer(b"k", Revoke(1), [2, b""], NOW_MS)


def test_every_operation_begins_with_a_head_of_one_length() -> None:
    assert len(pack(GET)) == len(pack(Revoke(1))) == 58


def talked(batch_of: int, replies: Callable[[list[tuple[bytes, ...]]], list[object]]) -> list[object]:
    """Drive a batch of Gets, two names a call; what its operations were answered."""
    talk = Talks(names_per_call=2).execute_many([(b"%d" % number, GET) for number in range(batch_of)], NOW_MS)
    commands = next(talk)
    while True:
        try:
            commands = talk.send(replies(commands))
        except StopIteration as end:
            return list(end.value)


def test_error_of_one_chunk_stands_in_the_place_of_its_operations() -> None:
    results = talked(5, lambda commands: [[[2, b""]] * 2, ReadOnlyError("replica"), [13]])
    assert [results[0], results[1], results[4]] == [Leased(7, Item()), Leased(7, Item()), NoOp()]
    assert [type(result) for result in results[2:4]] == [CacheUnavailable, CacheUnavailable]


def test_chunks_that_met_no_script_are_sent_again_behind_it_and_the_others_are_not() -> None:
    sent: list[list[tuple[bytes, ...]]] = []

    def reply(commands: list[tuple[bytes, ...]]) -> list[object]:
        sent.append(commands)
        if len(sent) == 1:
            return [[13, 13], NoScriptError("no script"), NoScriptError("no script")]
        return [b"sha", [13, 13], [13]]

    assert talked(5, reply) == [NoOp()] * 5
    assert [command[0] for command in sent[1]] == [b"SCRIPT", b"EVALSHA", b"EVALSHA"]
    assert sent[1][1:] == sent[0][1:]
