"""THE CLIENT MACHINE: what a client does with the answers of a cache, step by step.

Every rule of a client stands here, once, for all faces: threads, asyncio, batches, tests. The
functions are coroutines over a `Port` and touch nothing else. The numbers I1 … cite
PROTOCOL.md.
What a read shows of the answers stands in `shown.py`, what it goes by in `readplan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cachelib.errors import (
    CacheError,
    CacheUnavailable,
    DeadlineExceeded,
    DecodeError,
    LaterCodec,
    LoadFailed,
    StoreBudgetExceeded,
)
from cachelib.item import serves
from cachelib.model import (
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
    Revoke,
    Stored,
    Token,
)
from cachelib.policy import Lives, Mode, Pace
from cachelib.port import Found, Loaded, Port
from cachelib.readplan import ReadPlan
from cachelib.shown import shown_item, shown_loaded, shown_meanwhile, shown_stale, taken

FIRST_WAIT_MS = 4
"""A waiter looks again after this long, then after 1.5 times as long each time."""
WAIT_GROWTH = 1.5
LEAD_WAIT_MS, LEAD_WAIT_SHARE = 2, 16
"""Who looks for its whole process looks more closely: after a 16th of the time that the load has taken by then, so it
is late by no more of it than that; but not after less than 2 ms."""
WRITE_TRIES = 3
"""How often a writer's cache step is tried on a node that does not answer."""


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
                    return shown_item(plan, item, "hit")
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
                stale = shown_stale(port, plan, item)
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
    shown = shown_meanwhile(port, plan, item)
    if shown is None:
        port.take_off(plan.name)
    else:
        port.land(plan.name, shown)  # nobody should wait for this load
    try:
        return await _load_and_store(port, plan, token)
    except (LoadFailed, StoreBudgetExceeded):
        fallback = shown_meanwhile(port, plan, item)  # one that still serves was only to be refreshed early
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
        return shown_loaded(loaded, "filled")
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
    return shown_loaded(loaded, "store")


async def _past(port: Port, plan: ReadPlan) -> Found:
    """Ask the store, store nothing."""
    return await _own_load(port, plan, await port.load(plan.key))


async def _read_around(port: Port, plan: ReadPlan) -> Found:
    """A mode set by a person, or a layout change under way: take no lease, fill nothing."""
    if plan.mode is Mode.BYPASS and not plan.strong:
        return shown_loaded(await port.load(plan.key), "store")
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
    return shown_loaded(await port.load(plan.key), "store")


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
