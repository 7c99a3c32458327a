"""THE CLIENT MACHINE: what a client does with the answers of a cache, step by step.

Every rule of a client stands here, once, for all faces: threads, asyncio, batches, tests. The
functions are coroutines over a `Port` and touch nothing else. The numbers I1 … cite
PROTOCOL.md.

Longer than 300 lines because a read and a write are judged against each other: a rule of one is read beside the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cachelib.errors import (
    CacheError,
    CacheUnavailable,
    DeadlineExceeded,
    DecodeError,
    LaterCodec,
    LoadFailed,
    StoreBudgetExceeded,
)
from cachelib.item import may_serve_stale, serves
from cachelib.levels import always
from cachelib.model import (
    ANY,
    NOTHING,
    Answer,
    BelowFloor,
    Content,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Kind,
    Leased,
    Name,
    Op,
    RaiseFloor,
    Release,
    Requirement,
    Revoke,
    Stored,
    Token,
)
from cachelib.policy import Lives, Mode, Pace
from cachelib.port import Found, Landing, Loaded, Port

FIRST_WAIT_MS = 4
"""A waiter looks again after this long, then after 1.5 times as long each time."""
WAIT_GROWTH = 1.5
LEAD_WAIT_MS, LEAD_WAIT_SHARE = 2, 16
"""Who looks for its whole process looks more closely: after a 16th of the time that the load has taken by then, so it
is late by no more of it than that; but not after less than 2 ms."""
WRITE_TRIES = 3
"""How often a writer's cache step is tried on a node that does not answer."""


@dataclass(slots=True)
class ReadPlan:
    """One read, decided: everything that does not depend on what the cache answers. Nobody changes it.

    Not frozen all the same: of twenty fields that would be 2 µs more for each miss.
    """

    key: Any
    names: tuple[Name, ...]
    """Where the item is; while a layout change is under way, also where it is going to be."""
    pace: Pace
    lives: Lives
    decode: Callable[[bytes], Any]
    """Bytes to value. Raises `DecodeError`, or `LaterCodec` where a newer program wrote them."""
    requirement: Requirement = ANY
    """What the level asks of an item, see `levels.py`."""
    holds: Callable[[], bool] = always
    """Asked after an item was read: the server is still the one that the requirement was made for."""
    proven: bool = True
    """The node's items may be served, if they meet the requirement. False: whatever it holds, the store is asked."""
    strong: bool = False
    mode: Mode = Mode.ON
    stale: bool = True
    """Content that is no longer fresh may be shown while another loads, or when the store fails."""
    also: Requirement = ANY
    """What an item has to be besides; where one that serves is not, the store is asked."""
    joins: bool = True
    joins_from_us: int = 0
    """Only a load that began then (the store's clock) or later."""
    record: Callable[[Found], Found] | None = None
    """Told how the read ended; it answers that, with what is known besides."""
    store_when_down: bool = True
    """Ask the store when the node cannot be reached, instead of raising."""
    gutter: Name | None = None
    """What the key is called on the node that keeps it for a moment while its own does not answer."""
    gutter_ms: int = 0
    """For how long; nobody tells that node of changes."""

    @property
    def name(self) -> Name:
        """Where reads are served from and fills go to."""
        return self.names[0]

    @property
    def shows_stale(self) -> bool:
        """A strong read, or one that asks for something as new as it knows of, is never shown stale content."""
        if not self.stale or self.strong:
            return False
        return (self.requirement is ANY or self.requirement == ANY) and (self.also is ANY or self.also == ANY)


async def read(port: Port, plan: ReadPlan, vacant: bool = False) -> Found:
    """One read at any level, after the hit path found nothing to return; `vacant`: it found nothing at all."""
    moving = len(plan.names) > 1
    if plan.mode is not Mode.ON or (plan.strong and moving) or not plan.proven:  # I13
        return await _read_around(port, plan)
    if plan.joins and not plan.strong:  # I8
        joined = await _join(port, plan)
        if joined is not None:
            return joined
    try:
        found = await _read_or_do_without(port, plan, vacant)
    except (LoadFailed, StoreBudgetExceeded) as failure:
        port.land(plan.name, failure)
        raise
    except CacheUnavailable as failure:
        port.land(plan.name, None if plan.strong else failure)  # to raise it may be a rule of strong reads alone
        raise
    except BaseException:
        port.land(plan.name, None)  # cancelled or out of time: that is ours alone, so the others go on by themselves
        raise
    port.land(plan.name, found)
    return found


async def _read_or_do_without(port: Port, plan: ReadPlan, vacant: bool) -> Found:
    try:
        return await _read_through(port, plan, vacant)
    except CacheUnavailable:
        return await _without_cache(port, plan)


async def _join(port: Port, plan: ReadPlan) -> Found | None:
    """What another call of this process finds. I8: never for a strong read; it may have begun before."""
    return taken(plan, await port.join(plan.name, plan.pace.wait_ms_max))


def taken(plan: ReadPlan, landing: Landing) -> Found | None:
    """What a read that joined a flight takes of how that ended; None: nothing. Raises what it ended with."""
    if isinstance(landing, CacheError):
        raise landing
    if landing is None or landing.content is None:
        return None
    stale = landing.source == "stale"
    if not (plan.shows_stale if stale else _new_enough(plan, landing)):
        return None
    # Written out, and in one go: fifty threads do it at once, each with what another left in the processor's caches.
    return Found(
        plan.decode(landing.content.payload) if landing.found else None,
        landing.found,
        landing.version,
        "stale" if stale else "joined",
        landing.as_of_us,
        landing.content,
        landing.source in ("filled", "hit"),
    )


def _new_enough(plan: ReadPlan, landing: Found) -> bool:
    """Not from before what this read has to see."""
    if plan.requirement is ANY and plan.also is ANY:
        return landing.as_of_us >= plan.joins_from_us
    item = Item(landing.content or NOTHING, version=landing.version, as_of_us=landing.as_of_us)
    return item.as_of_us >= plan.joins_from_us and serves(item, plan.requirement) and serves(item, plan.also)


async def _read_through(port: Port, plan: ReadPlan, vacant: bool) -> Found:
    waited, pause, repaired = 0, float(FIRST_WAIT_MS), False
    while True:
        answer = await _look(port, plan, Get(port.nonce(), plan.pace.hold_ms, plan.requirement, vacant))
        vacant = False
        match answer:
            case Hit(item):
                if not plan.holds():  # a server that came back with old data may have answered
                    port.note("server_changed")
                    return await _past(port, plan)
                if not serves(item, plan.also):
                    return await _past(port, plan)
                try:
                    return _found(plan, item, "hit")
                except LaterCodec:
                    port.note("later_codec")
                    return await _past(port, plan)
                except DecodeError:  # I12: doubt is a miss; void it, and be the one who fills it
                    port.note("undecodable")
                    if repaired:
                        return await _past(port, plan)
                    repaired = True
                    await port.execute(plan.name, Revoke(stale_ttl_ms=0))
            case Leased(token, item):
                return await _fill(port, plan, token, item)
            case Held(left_ms, item):
                stale = _stale(port, plan, item)
                if stale is not None:
                    return stale
                if waited >= plan.pace.wait_ms_max:  # I10
                    port.note("wait_gave_up")
                    return await _past(port, plan)
                port.note("wait")
                long = _lead_wait(plan.pace, left_ms) if port.lead(plan.name) else pause
                ms = max(1, int(long * (0.5 + port.jitter())))
                await port.wait(plan.name, ms)
                waited, pause = waited + ms, min(pause * WAIT_GROWTH, plan.pace.wait_ms)
                vacant = True  # as where there was nothing: likely it is held or filled, and no rule has to change it
            case other:
                raise _unexpected(other)


def _lead_wait(pace: Pace, left_ms: int) -> float:
    """The pause of a reader whose process waits for it. `left_ms`: of the lease."""
    taken_ms = max(0, pace.hold_ms - left_ms)
    return min(max(LEAD_WAIT_MS, taken_ms / LEAD_WAIT_SHARE), pace.wait_ms)


async def _look(port: Port, plan: ReadPlan, get: Get) -> Answer:
    try:
        return await port.execute(plan.name, get)
    except CacheError:
        raise
    except BaseException:
        # Cancelled while the answer was on its way: it may have been the lease.
        port.abandon(plan.name, Release(get.token))
        raise


async def _fill(port: Port, plan: ReadPlan, token: Token, item: Item) -> Found:
    """The lease is ours: load (I6: only now), then store under it."""
    shown = _shown_meanwhile(port, plan, item)
    if shown is None:
        port.take_off(plan.name)
    else:
        port.land(plan.name, shown)  # nobody should wait for this load
    try:
        return await _load_and_store(port, plan, token)
    except (LoadFailed, StoreBudgetExceeded):
        fallback = _after_failed_load(port, plan, item)
        await _release(port, plan, token)
        if fallback is None:
            raise
        return fallback
    except BaseException:
        port.abandon(plan.name, Release(token))
        raise


async def _load_and_store(port: Port, plan: ReadPlan, token: Token) -> Found:
    loaded = await port.load(plan.key)
    if loaded.content is None:
        port.note("too_large")
        await _release(port, plan, token)
        return await _own_load(port, plan, loaded)
    ttl_ms, soft_ttl_ms = lives_of(port, plan.lives, loaded.content)
    fill = Fill(token, loaded.content, loaded.version, ttl_ms, soft_ttl_ms, loaded.as_of_us)
    try:
        answer = await port.execute(plan.name, fill)
    except CacheUnavailable:
        port.note("fill_failed")
        return await _own_load(port, plan, loaded)
    if isinstance(answer, Stored):
        return _loaded_found(loaded, "filled")
    port.note("fill_refused")
    # No floor lets content without a version in, and leases would keep that floor alive: as if evicted.
    stuck = isinstance(answer, BelowFloor) and loaded.version == 0
    return await _own_load(port, plan, loaded, stuck)


async def _own_load(port: Port, plan: ReadPlan, loaded: Loaded, stuck: bool = False) -> Found:
    """The item does not hold what was loaded. A strong read may return it only once no one
    can be shown anything older (I8)."""
    if plan.strong or stuck:
        op: Op = RaiseFloor(loaded.version, "update", plan.lives.stale_ttl_ms)
        if loaded.version == 0:
            op = Revoke(plan.lives.stale_ttl_ms)
        try:
            for name in plan.names:
                await port.execute(name, op)
        except CacheUnavailable:
            if not plan.store_when_down:
                raise
            port.note("unreachable")
    return _loaded_found(loaded, "store")


async def _past(port: Port, plan: ReadPlan) -> Found:
    """Ask the store, store nothing."""
    return await _own_load(port, plan, await port.load(plan.key))


async def _read_around(port: Port, plan: ReadPlan) -> Found:
    """A mode set by a person, or a layout change under way: take no lease, fill nothing."""
    if plan.mode is Mode.BYPASS and not plan.strong:
        return _loaded_found(await port.load(plan.key), "store")
    try:
        return await _past(port, plan)
    except CacheUnavailable:
        return await _without_cache(port, plan)


async def _without_cache(port: Port, plan: ReadPlan) -> Found:
    """The node cannot be reached. PROTOCOL.md says what a strong read may still promise."""
    port.note("unreachable")
    if not plan.store_when_down:
        raise CacheUnavailable(
            f"no answer from the cache for key {plan.key!r}, and its policy does not allow asking the store instead;"
            " retry, or set OnFailure(read='store')"
        )
    if plan.gutter is not None:
        return await _beside(port, plan, plan.gutter)
    return _loaded_found(await port.load(plan.key), "store")


async def _beside(port: Port, plan: ReadPlan, gutter: Name) -> Found:
    """An eventual read, by way of another node: so that the readers of a dead one do not all ask the store."""
    lives, most_ms = plan.lives, plan.gutter_ms
    brief = Lives(min(lives.ttl_ms, most_ms), min(lives.negative_ttl_ms, most_ms), 0, lives.jitter, 0.0)
    found = await read(port, replace(plan, names=(gutter,), gutter=None, lives=brief, stale=False))
    return replace(found, source="gutter") if found.source == "hit" else found


async def _release(port: Port, plan: ReadPlan, token: Token) -> None:
    try:
        await port.execute(plan.name, Release(token))
    except CacheUnavailable:
        port.note("unreachable")  # the lease ends by itself
    except DeadlineExceeded:
        port.abandon(plan.name, Release(token))  # the caller waits no longer; the next reader need not either


def _after_failed_load(port: Port, plan: ReadPlan, item: Item) -> Found | None:
    return _shown_meanwhile(port, plan, item)  # one that still serves was only to be refreshed early


def _shown_meanwhile(port: Port, plan: ReadPlan, item: Item) -> Found | None:
    """What readers are shown while this one loads."""
    if not _serves(plan, item):
        return _stale(port, plan, item)
    try:
        return _found(plan, item, "hit")
    except DecodeError:
        return None


def _serves(plan: ReadPlan, item: Item) -> bool:
    return plan.holds() and serves(item, plan.requirement) and serves(item, plan.also)


def _stale(port: Port, plan: ReadPlan, item: Item) -> Found | None:
    if not plan.shows_stale or not may_serve_stale(item, port.now_ms()):
        return None
    try:
        return _found(plan, item, "stale")
    except DecodeError:
        return None


def _found(plan: ReadPlan, item: Item, source: Any) -> Found:
    content = item.content
    if content.kind is Kind.ABSENCE:
        return Found(None, False, item.version, source, item.as_of_us, content)
    return Found(plan.decode(content.payload), True, item.version, source, item.as_of_us, content)


def _loaded_found(loaded: Loaded, source: Any) -> Found:
    return Found(loaded.value, loaded.found, loaded.version, source, loaded.as_of_us, loaded.content)


def lives_of(port: Port, lives: Lives, content: Content) -> tuple[int, int]:
    """Hard and soft life of new content, see `Lives.of`."""
    return lives.of(content.kind is Kind.ABSENCE, port.jitter)


def _unexpected(answer: object) -> CacheUnavailable:
    return CacheUnavailable(f"the node answered a read with {type(answer).__name__}; that is no answer to a read")


# --- writing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WritePlan:
    """One key's cache step of a committed transaction: the same operation on each of its names."""

    names: tuple[Name, ...]
    op: Op


async def settle(port: Port, plan: WritePlan) -> bool:
    """Tell the cache of a committed change (I7). True: the item knows; False: the log will have to tell it."""
    for name in plan.names:
        if not await _told(port, name, plan.op):
            return False
    return True


async def _told(port: Port, name: Name, op: Op) -> bool:
    pause = FIRST_WAIT_MS
    for attempt in range(WRITE_TRIES):
        if attempt:
            await port.wait(name, pause)
            pause *= 2
        try:
            await port.execute(name, op)
        except CacheUnavailable:
            port.note("unreachable")
        else:
            return True
    return False
