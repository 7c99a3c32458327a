"""A Redis Cluster as one node: each operation goes to the master of its name's slot.

The cluster owns where keys live, and says so: MOVED (somewhere else now), ASK (this one key is already there),
TRYAGAIN and CLUSTERDOWN (in a moment). What a server refused was not done, so it may be sent again; what it did not
answer may have been, and is not. Written once, in coroutines: the face for threads runs them to their end.

A promoted replica may have lost what was acknowledged, so a strong read stands on the start of its slot's master and on
the slot's coming to it (`cluster_starts.py`). To the invalidator the cluster tells one start of all masters together.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from cachelib.backends.base import Batch, Results
from cachelib.backends.redis.cluster_map import SlotMap, place_of, slot_of, tag_of
from cachelib.backends.redis.cluster_talks import ClusterTalks, refusal
from cachelib.backends.redis.cluster_watch import Shard, Watch
from cachelib.backends.redis.talks import Talk, plain
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.model import Answer, Name, Op

T = TypeVar("T")
REDIRECTS = 6
"""An operation is sent on so often, then its refusal is the answer (I10)."""
PAUSE_S = 0.05
REFRESH_S = 0.5
"""The map is asked for so often at most."""
SEQUENCE = 20
"""Digits before a note, by which those of several masters are compared."""


class Cluster:
    """See the module. `dial` makes the way to a place; `sleep` and `together` are the face's."""

    def __init__(
        self,
        seeds: Sequence[str],
        talks: ClusterTalks,
        dial: Callable[[str], Shard],
        sleep: Callable[[float], Awaitable[None]],
        together: Callable[[Sequence[Coroutine[Any, Any, None]]], Awaitable[None]],
    ) -> None:
        self._seeds = list(seeds)
        self._talks = talks
        self._dial = dial
        self._sleep = sleep
        self._together = together
        self._shards: dict[str, Shard] = {}
        self._map: SlotMap | None = None
        self._asked_at = float("-inf")
        self._watch = Watch(talks, self._shards, self)
        self.start_of = self._watch.start_of
        """See `standing.StartOf`."""
        self._sequence = 0

    # --- the map -----------------------------------------------------------------------------

    def shard(self, place: str) -> Shard:
        """The way to a place; made once."""
        shard = self._shards.get(place)
        if shard is None:
            shard = self._shards.setdefault(place, self._dial(place))
            self._watch.met(place, shard)
        return shard

    def known(self, name: Name) -> Shard | None:
        """Where the name is as far as is known; None: ask."""
        place = self._map.owner(slot_of(name)) if self._map is not None else ""
        return self.shard(place) if place else None

    def master_of(self, name: Name) -> str | None:
        """The place of the name's master as far as is known."""
        return (self._map.owner(slot_of(name)) or None) if self._map is not None else None

    async def replicas_of(self, master: str) -> Sequence[str]:
        """The places of a master's replicas, as a server of the cluster knows them now."""
        return (await self.refresh()).replicas.get(master, ())

    async def slots(self) -> SlotMap:
        """The map as it was read last. Raises `CacheUnavailable` where no server tells it."""
        return self._map or await self.refresh()

    async def refresh(self) -> SlotMap:
        """Read the map anew, unless that was done a moment ago."""
        known = self._map
        if known is not None and time.monotonic() - self._asked_at < REFRESH_S:
            return known
        self._asked_at = time.monotonic()
        failure: CacheUnavailable | None = None
        for place in dict.fromkeys([*(known.masters if known is not None else ()), *self._seeds]):
            try:
                return self._taken(await self.shard(place).converse(self._talks.slot_map(place)))
            except CacheUnavailable as error:
                failure = error
        raise CacheUnavailable(f"no server of the redis cluster tells its slots; the last said: {failure}") from failure

    def _taken(self, slots: SlotMap) -> SlotMap:
        """Go by this map from now on."""
        if self._map is not None:
            self._watch.moved(slots.differing(self._map))
        self._map = slots
        return slots

    async def _by_place(self, names: Iterable[Name]) -> dict[str, list[int]]:
        slots = await self.slots()
        groups: dict[str, list[int]] = {}
        for at, name in enumerate(names):
            groups.setdefault(slots.owner(slot_of(name)), []).append(at)
        return groups

    # --- asking ------------------------------------------------------------------------------

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""

        def ask(ats: list[int]) -> Talk[list[object]]:
            return self._talks.get_each([names[at] for at in ats])

        replies = await self._all(names, ask, lambda at: self._talks.get_asking(names[at]), again=True)
        for reply in replies:
            if isinstance(reply, CacheError):
                raise reply
        return [plain(reply) for reply in replies]

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        (result,) = await self.execute_many([(name, op)], now_ms)
        if isinstance(result, CacheError):
            raise result
        return result

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""

        def ask(ats: list[int]) -> Talk[Any]:
            return self._talks.execute_many([batch[at] for at in ats], now_ms)

        def asking(at: int) -> Talk[Any]:
            return self._first(self._talks.execute_asking([batch[at]], now_ms))

        return await self._all([name for name, _ in batch], ask, asking, again=False)

    def _first(self, talk: Talk[Results]) -> Talk[Any]:
        return (yield from talk)[0]

    async def _all(
        self,
        names: Sequence[Name],
        ask: Callable[[list[int]], Talk[list[Any]]],
        asking: Callable[[int], Talk[Any]],
        *,
        again: bool,
    ) -> list[Any]:
        """Every name's reply, after the redirections. `again`: what was not answered may be asked once more."""
        results: dict[int, Any] = {}
        left = list(range(len(names)))
        for attempt in range(1 + REDIRECTS):
            if attempt and any(isinstance(refusal(results[at]), TryAgainError | ClusterDownError) for at in left):
                await self._sleep(PAUSE_S)
            groups = await self._by_place([names[at] for at in left])
            parts = [(place, [left[at] for at in ats]) for place, ats in groups.items()]
            await self._together([self._part(place, ats, ask, results) for place, ats in parts])
            left = await self._redirected(names, left, results, asking, again=again and not attempt)
            if not left:
                break
        return [results[at] for at in range(len(names))]

    async def _part(
        self, place: str, ats: list[int], ask: Callable[[list[int]], Talk[list[Any]]], results: dict[int, Any]
    ) -> None:
        try:
            if not place:
                raise CacheUnavailable("no master of the redis cluster has the slot")
            results.update(zip(ats, await self.shard(place).converse(ask(ats)), strict=True))
        except CacheUnavailable as failure:
            results.update(dict.fromkeys(ats, failure))

    async def _redirected(
        self,
        names: Sequence[Name],
        ats: list[int],
        results: dict[int, Any],
        asking: Callable[[int], Talk[Any]],
        *,
        again: bool,
    ) -> list[int]:
        """Those that are to be sent again; what was asked for by ASK is done here."""
        left: list[int] = []
        for at in ats:
            refused = refusal(results[at])
            if isinstance(refused, AskError):  # MOVED is one, too
                self._watch.moved([slot_of(names[at])])
            if isinstance(refused, AskError) and not isinstance(refused, MovedError):
                await self._part(
                    place_of(refused.host, refused.port), [at], lambda one: _alone(asking(one[0])), results
                )
            elif isinstance(refused, MovedError):
                (await self.slots()).moved(slot_of(names[at]), place_of(refused.host, refused.port))
                left.append(at)
            elif isinstance(refused, TryAgainError | ClusterDownError):
                left.append(at)
            elif isinstance(results[at], CacheUnavailable):
                before = (await self.slots()).owner(slot_of(names[at]))
                moved = await self.tried_refresh() and (await self.slots()).owner(slot_of(names[at])) != before
                left += [at] if again and moved else []
        if left and not all(isinstance(refusal(results[at]), TryAgainError) for at in left):
            await self.tried_refresh()
        return left

    async def tried_refresh(self) -> bool:
        """Read the map anew if anybody tells it."""
        try:
            await self.refresh()
        except CacheUnavailable:
            return False
        return True

    # --- for the invalidator -----------------------------------------------------------------

    async def instance(self) -> str:
        """All masters' starts: a failover, a restart and a master that comes or goes change it."""
        self._asked_at = float("-inf")
        slots = await self.refresh()
        told = [await self.shard(place).converse(self._talks.instance()) for place in sorted(slots.masters)]
        return "+".join(sorted(told))

    async def began_empty(self) -> bool:
        """See `Redis.began_empty`."""
        places = (await self.slots()).masters
        return all([await self.shard(place).converse(self._talks.began_empty()) for place in places])

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`. A note says of each master that all were told: so it follows when all have answered."""
        slots = await self.slots()
        starts = {place: await self.shard(place).converse(self._talks.instance()) for place in slots.masters}
        results = await self.execute_many(batch, now_ms)
        if not notes or any(isinstance(result, CacheError) for result in results):
            return results
        if (await self.slots()).masters.keys() != starts.keys():
            raise CacheUnavailable("the redis cluster's masters changed in the middle of a batch")
        self._sequence = max(self._sequence, time.time_ns()) + 1
        for place, slot in (await self.slots()).masters.items():
            tagged = {name + tag_of(slot): b"%0*d" % (SEQUENCE, self._sequence) + raw for name, raw in notes.items()}
            await self.shard(place).converse(self._talks.keep_here(starts[place], tagged))
        return results

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`. Where masters say different things, one was promoted with less.

        So the oldest counts; and where one says nothing, nothing is proven.
        """
        slots = await self.slots()
        said: list[list[bytes | None]] = []
        for place, slot in slots.masters.items():
            replies = await self.shard(place).converse(self._talks.get_each([name + tag_of(slot) for name in names]))
            said.append([plain(reply) for reply in replies])
        found: list[bytes | None] = []
        for at in range(len(names)):
            each = [notes[at] for notes in said]
            present = [note for note in each if note is not None]
            self._sequence = max([self._sequence, *(_sequence(note) for note in present)])
            found.append(min(present)[SEQUENCE:] if len(present) == len(each) else None)
        return found

    async def close(self) -> None:
        """Close every connection."""
        for shard in list(self._shards.values()):
            await shard.close()


def _alone(talk: Talk[T]) -> Talk[list[T]]:
    return [(yield from talk)]


def _sequence(note: bytes) -> int:
    digits = note[:SEQUENCE]
    return int(digits) if digits.isdigit() else 0
