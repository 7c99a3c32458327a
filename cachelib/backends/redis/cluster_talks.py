"""What is said to one master of a Redis Cluster: single-key commands only, pipelined. See `talks.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from cachelib.backends.base import Batch, Results
from cachelib.backends.redis.cluster_map import SlotMap, map_from
from cachelib.backends.redis.talks import Talk, Talks, told
from cachelib.errors import CacheUnavailable
from cachelib.model import Name


@dataclass(slots=True)
class ClusterTalks(Talks):
    """`names_per_call` is 1: keys of one call must share a slot, even on one master."""

    def slot_map(self, asked: str) -> Talk[SlotMap]:
        """Which master has which slots."""
        (reply,) = yield [(b"CLUSTER", b"SLOTS")]
        if isinstance(reply, Exception):
            raise CacheUnavailable(f"redis at {asked} does not tell the cluster's slots: {reply}") from reply
        return map_from(reply, asked)

    def start(self) -> Talk[str]:
        """The start of this master, with the epoch of its slots (`cluster_starts.py`)."""
        replies = yield [(b"INFO", b"server"), (b"INFO", b"replication"), (b"CLUSTER", b"INFO")]
        fields = zip(replies, (b"run_id", b"master_replid", b"cluster_my_epoch"), strict=True)
        return "-".join([told(reply, field) for reply, field in fields])

    def get_each(self, names: Sequence[Name]) -> Talk[list[object]]:
        """The reply to GET for each name; a refusal stands in its place."""
        if not names:
            return []
        replies = yield [(b"GET", name) for name in names]
        return list(replies)

    def get_asking(self, name: Name) -> Talk[object]:
        """GET of a name that is just moving here."""
        replies = yield [(b"ASKING",), (b"GET", name)]
        return replies[1]

    def execute_asking(self, batch: Batch, now_ms: int) -> Talk[Results]:
        """One operation on a name that is just moving here. The script is sent along: ASKING holds for one command."""
        replies = yield [(b"SCRIPT", b"LOAD", self.script.text), (b"ASKING",), self._call(batch, now_ms)]
        return self._results(batch, replies[2], now_ms)

    def keep_here(self, instance: str, notes: Mapping[Name, bytes]) -> Talk[None]:
        """Keep the notes, if it still is the same start of the server as had the batch (I11)."""
        now = yield from self.instance()
        if now != instance:
            raise CacheUnavailable(f"a master was replaced in the middle of a batch: {instance}, now {now}")
        replies = yield [(b"SET", name, text) for name, text in notes.items()]
        for name, reply in zip(notes, replies, strict=True):
            self._kept(name, reply)


def refusal(result: object) -> ResponseError | None:
    """The server's refusal that a result stands for."""
    error = result.__cause__ if isinstance(result, CacheUnavailable) else result
    return error if isinstance(error, ResponseError) else None
