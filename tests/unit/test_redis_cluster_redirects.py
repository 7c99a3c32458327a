"""How a cluster's client takes its servers' redirections: bounded, in place, and nothing unanswered is sent twice."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from redis.connection import DefaultParser

from cachelib.backends.redis.cluster import REDIRECTS, Cluster
from cachelib.backends.redis.cluster_map import SLOTS, map_from, slot_of
from cachelib.backends.redis.cluster_talks import ClusterTalks
from cachelib.backends.redis.talks import Talk
from cachelib.drivers import run_now
from cachelib.errors import CacheUnavailable, ProtocolError
from cachelib.model import Revoke

A, B = "10.0.0.1:6379", "10.0.0.2:6379"
NAME = b"lc/e.t/key"
Says = Callable[[tuple[bytes, ...]], Any]


def error(text: str) -> Exception:
    found: Exception = DefaultParser.parse_error(text)
    return found


class Server:
    """Answers as it is told; None to a whole talk: it does not answer."""

    def __init__(self, place: str, says: Says) -> None:
        self.place, self.says = place, says
        self.asked: list[tuple[bytes, ...]] = []

    async def converse(self, talk: Talk[Any]) -> Any:
        replies: Any = None
        try:
            while True:
                commands = talk.send(replies)
                self.asked += commands
                replies = [self.says(command) for command in commands]
                if any(reply is Server for reply in replies):
                    raise CacheUnavailable(f"{self.place} does not answer")
        except StopIteration as end:
            return end.value

    def watch(self, ask: Any, seen: Any) -> None:
        pass

    async def close(self) -> None:
        pass


def slots(owner: str) -> Any:
    host, _, port = owner.rpartition(":")
    return [[0, SLOTS - 1, [host.encode(), int(port), b"id"], [b"10.9.9.9", 1, b"replica"]]]


class Scene:
    """Two servers; `a` has all slots at first."""

    def __init__(self) -> None:
        self.owner = A
        self.slept: list[float] = []
        self.a = Server(A, self.says)
        self.b = Server(B, self.says)
        servers = {A: self.a, B: self.b}

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        async def one_by_one(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
            for call in calls:
                await call

        self.cluster = Cluster([A, B], ClusterTalks(1), servers.__getitem__, sleep, one_by_one)

    def says(self, command: tuple[bytes, ...]) -> Any:
        """A sound server."""
        if command[0] == b"CLUSTER":
            return slots(self.owner)
        return [13] if command[0] == b"EVALSHA" else b"value" if command[0] == b"GET" else b"OK"

    def a_refuses(self, *texts: str) -> None:
        """The next commands on the name are refused so, then it is sound; the last one for ever if it ends in "…"."""
        left = list(texts)

        def says(command: tuple[bytes, ...]) -> Any:
            if command[0] == b"CLUSTER" or not left:
                return self.says(command)
            text = left[0] if left[0].endswith("…") else left.pop(0)
            return error(text.removesuffix("…"))

        self.a.says = says

    def get(self) -> Any:
        return run_now(self.cluster.get(NAME))

    def revoke(self) -> Any:
        return run_now(self.cluster.execute(NAME, Revoke(1000), 0))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_moved_is_followed_and_remembered(scene: Scene) -> None:
    scene.a_refuses(f"MOVED {slot_of(NAME)} {B}")
    assert scene.get() == b"value"
    before = len(scene.a.asked)
    assert scene.get() == b"value"
    assert len(scene.a.asked) == before


def test_ask_is_done_there_and_not_remembered(scene: Scene) -> None:
    scene.a_refuses(f"ASK {slot_of(NAME)} {B}")
    assert scene.get() == b"value"
    assert [command[0] for command in scene.b.asked] == [b"ASKING", b"GET"]
    assert scene.get() == b"value"
    assert scene.a.asked[-1] == (b"GET", NAME)


def test_a_script_that_is_asked_for_elsewhere_comes_along(scene: Scene) -> None:
    scene.a_refuses(f"ASK {slot_of(NAME)} {B}")
    scene.revoke()
    assert [command[0] for command in scene.b.asked] == [b"SCRIPT", b"ASKING", b"EVALSHA"]


@pytest.mark.parametrize("text", ["TRYAGAIN Multiple keys request during rehashing", "CLUSTERDOWN The cluster is down"])
def test_what_passes_is_tried_again_after_a_pause(scene: Scene, text: str) -> None:
    scene.a_refuses(text, text)
    assert scene.get() == b"value"
    assert len(scene.slept) == 2


@pytest.mark.parametrize("text", ["CLUSTERDOWN The cluster is down…", f"MOVED {slot_of(NAME)} {A}…"])
def test_what_does_not_pass_is_given_up(scene: Scene, text: str) -> None:
    scene.a_refuses(text)
    with pytest.raises(CacheUnavailable, match=r"CLUSTERDOWN|MOVED|down|127|10\.0"):
        scene.get()
    assert sum(command[0] == b"GET" for command in scene.a.asked) == 1 + REDIRECTS


def test_an_operation_that_was_not_answered_is_not_sent_again(scene: Scene) -> None:
    scene.a.says = lambda command: slots(A) if command[0] == b"CLUSTER" else Server
    with pytest.raises(CacheUnavailable):
        scene.revoke()
    assert sum(command[0] == b"EVALSHA" for command in scene.a.asked) == 1
    assert not scene.b.asked


def test_a_read_of_a_master_that_is_gone_is_asked_of_its_successor(scene: Scene) -> None:
    assert scene.get() == b"value"
    scene.owner = B
    scene.a.says = lambda command: Server
    scene.cluster._asked_at = float("-inf")  # the map was read a while ago
    assert scene.get() == b"value"
    assert scene.b.asked[-1] == (b"GET", NAME)


def test_another_slot_of_the_same_batch_is_not_held_up(scene: Scene) -> None:
    scene.a_refuses(f"MOVED {slot_of(NAME)} {B}")
    assert run_now(scene.cluster.get_many([NAME, b"lc/e.t/other"])) == [b"value", b"value"]
    assert (b"GET", b"lc/e.t/other") not in scene.b.asked


@pytest.mark.parametrize("reply", [b"OK", [[0, 1]], [[0, 99999, [b"h", 1]]], [[0, 5, [b"h", b"port"]]]])
def test_slots_that_cannot_be_read_are_no_map(reply: Any) -> None:
    with pytest.raises(ProtocolError, match="told its slots by"):
        map_from(reply, A)


def test_a_server_that_leaves_its_own_host_out_is_where_it_was_asked() -> None:
    assert map_from([[0, 5, [b"", 7000, b"id"]]], "cache-1:6379").owner(3) == "cache-1:7000"
    assert map_from([[0, 5, [b"", 7000, b"id"]]], "cache-1:6379").owner(6) == ""
