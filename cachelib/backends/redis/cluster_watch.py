"""Which start of its master each slot of a cluster is at, asked of the masters for strong reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from cachelib.backends.redis.cluster_map import SlotMap, slot_of
from cachelib.backends.redis.cluster_starts import LOOK_S, Start, Starts
from cachelib.backends.redis.cluster_talks import ClusterTalks
from cachelib.backends.redis.talks import Talk
from cachelib.errors import CacheUnavailable
from cachelib.model import Name
from cachelib.proof import Seen

T = TypeVar("T")


class Shard(Protocol):
    """One server."""

    async def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end. Raises `CacheUnavailable`."""

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Backend.watch`; `ask` is the talk that finds out."""

    async def close(self) -> None:
        """Close its connections."""


class Slots(Protocol):
    """Who knows where slots are."""

    def shard(self, place: str) -> Shard:
        """The way to a place."""

    async def slots(self) -> SlotMap:
        """The map as it was read last. Raises `CacheUnavailable`."""

    async def tried_refresh(self) -> bool:
        """Read the map anew if anybody tells it."""


class Watch:
    """Begins with the first strong read; until then connections are not asked what they lead to."""

    def __init__(self, talks: ClusterTalks, shards: Mapping[str, Shard], cluster: Slots) -> None:
        self._talks = talks
        self._shards = shards
        self._cluster = cluster
        self._starts: Starts | None = None

    async def start_of(self, name: Name) -> Start | None:
        """Since when the name's slot is at the start of a master that answers; None where nobody tells.

        Raises `CacheUnavailable`.
        """
        starts = self._began()
        slot = slot_of(name)
        place = (await self._cluster.slots()).owner(slot)
        if not place:
            return None
        now, master = starts.clock(), starts.master(place)
        if master is None or (now - master.looked_at >= LOOK_S and now - master.began >= LOOK_S):
            await self._look(starts, place, now)
        return starts.of(slot, place)

    def met(self, place: str, shard: Shard) -> None:
        """From now on each connection of this shard tells which start it leads to, before it is used."""
        starts = self._starts
        if starts is None:
            return

        def seen(told: str) -> bool:
            before = starts.master(place)
            return starts.told(place, told) is not before and before is not None

        shard.watch(self._talks.start, seen)

    def moved(self, slots: Sequence[int]) -> None:
        """See `Starts.moved`."""
        if self._starts is not None and slots:
            self._starts.moved(slots)

    def _began(self) -> Starts:
        if self._starts is None:
            self._starts = Starts()
            for place, shard in list(self._shards.items()):
                self.met(place, shard)
        return self._starts

    async def _look(self, starts: Starts, place: str, now: float) -> None:
        asked = starts.master(place)
        if asked is not None:
            asked.began = now  # others go on by what is known
        try:
            told = await self._cluster.shard(place).converse(self._talks.start())
        except CacheUnavailable:
            await self._cluster.tried_refresh()  # another may have taken its place
            raise
        starts.told(place, told).looked_at = now
