"""The world that the search explores: one key, its store, the change log, readers, writers, an invalidator.

It decides nothing about the cache: items change by `item.apply` alone, and processes are the
coroutines of `steps.py`. A state is a tuple of small numbers; items and processes are kept
once in tables and named by their place there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from cachelib import item as cache
from cachelib import steps
from cachelib.drivers import Load
from cachelib.errors import CacheUnavailable, LoadFailed
from cachelib.model import (
    ABSENCE,
    Claim,
    Content,
    Item,
    Kind,
    Leased,
    Op,
    Put,
    RaiseFloor,
    Revoke,
    RowOp,
    value_of,
)
from cachelib.port import Found, Loaded
from cachelib.readplan import ReadPlan
from cachelib.steps import Lives, Mode, Pace, WritePlan
from tests.model.processes import NOW_MS, Asks, Cancelled, Ended, as_told, replay

NAME = b"key"
HOLD_MS = 1_000
LIFE_MS = 100_000
ORPHAN = 1 << 40
"""Stands for every lease whose holder is gone: nobody will present it again."""
UNAVAILABLE = CacheUnavailable("no answer")
LOAD_FAILED = LoadFailed("the store failed")
CANCELLED = Cancelled()


@dataclass(frozen=True, slots=True)
class Config:
    """What takes part, and how often the world may interfere."""

    plans: tuple[str, ...] = ("strong", "strong")
    """One reader each: strong, eventual, no_fill, or "patient", a strong one that waits for leases."""
    reads: int = 1
    writers: int = 2
    write: Literal["through", "populate", "invalidate", "revoke"] = "through"
    deletes: bool = False
    row_at_first: bool = True
    versions: Literal["rising", "early_insert", "restart", "restart_revoke", "none"] = "rising"
    """rising: in commit order. early_insert: an insert may have drawn before the delete it follows.
    restart: a counter in the row that begins again. restart_revoke: and deletes carry none. none: no versions."""
    many_rows: bool = False
    log_ahead: bool = False
    """The change log shows a commit before readers of the store can see it."""
    second_look: bool = True
    refresh: Literal["no", "second_look", "first_look"] = "no"
    tombstones: bool = False
    replica_lag: int = 0
    early_refresh: bool = False
    when_down: Literal["store", "raise"] = "raise"
    strong: bool = True
    """Check that completed operations are never followed by older reads (else only `settle`)."""
    evict: int = 1
    expire: int = 1
    age: int = 0
    rewind: int = 0
    crash: int = 0
    fault: int = 0
    """So many operations get no answer, and are executed later or never."""
    load_fail: int = 0
    cancel: int = 0
    heals: bool = True
    """Check that no key is lost to the cache for good."""

    def smaller(self) -> Config:
        """The same on bounds for every day: no evictions; with deletes, or the log ahead, no lease expires."""
        return replace(self, evict=0, expire=0 if self.deletes or self.log_ahead else self.expire)

    def bigger(self) -> Config:
        """The same on larger bounds: somebody may die, and the log may be rewound."""
        return replace(self, crash=1, rewind=1)


class Proc(NamedTuple):
    """One reader or writer between two answers."""

    kind: str
    left: int
    """Operations that it still has to begin or to end."""
    mark: int = 0
    """A reader: the newest commit that a completed operation knew when this read began. A writer: its commit."""
    doing: Any = None
    """None, "read", or the operation that it sends."""
    replies: tuple[Any, ...] = ()


class State(NamedTuple):
    """Everything, in small numbers."""

    item: int
    commits: tuple[tuple[RowOp, int], ...]
    visible: int
    applied: int
    again: int
    done: int
    procs: tuple[int, ...]
    limbo: tuple[Op, ...]
    evict: int
    expire: int
    age: int
    rewind: int
    crash: int
    fault: int
    load_fail: int
    cancel: int


Move = tuple[str, State, str | None]


class Table:
    """Numbers for things, the same number for equal things."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, thing: Any) -> int:
        if thing not in self._places:
            self._places[thing] = len(self.things)
            self.things.append(thing)
        return self._places[thing]


class World:
    """The moves that are possible in a state, and what is wrong with one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.items, self._procs = Table(), Table()
        self.items.place(None)
        self._applied: dict[tuple[int, Op], tuple[int, Any]] = {}
        self._replayed: dict[int, Asks | Ended] = {}
        self._renamed: dict[tuple[Op, int, int], Op] = {}
        self.plans = {kind: _plan(kind, config) for kind in config.plans}

    def start(self) -> State:
        c = self.config
        procs = [Proc(kind, c.reads) for kind in c.plans] + [Proc("writer", 1) for _ in range(c.writers)]
        ids = tuple(sorted(self._procs.place(proc) for proc in procs))
        return State(
            0, (), 0, 0, 0, 0, ids, (), c.evict, c.expire, c.age, c.rewind, c.crash, c.fault, c.load_fail, c.cancel
        )

    # --- the store ---------------------------------------------------------------------------

    def row(self, s: State, at: int) -> tuple[bool, int]:
        """Whether there is a row after commit `at`, and its version."""
        if at == 0:
            return self.config.row_at_first, 0 if self.config.versions == "none" else 10
        change, version = s.commits[at - 1]
        return change != "delete", version

    def loaded(self, s: State, at: int) -> Loaded:
        found, version = self.row(s, at)
        if not found:
            return Loaded(ABSENCE, None, False, 0, 0)
        known = 0 if self.config.many_rows else version
        return Loaded(value_of(bytes([at])), at, True, known, 0)

    def choices(self, s: State) -> Iterator[tuple[RowOp, int]]:
        """What a writer may commit now: each change with the version that it draws."""
        c, last = self.config, len(s.commits)
        there, version = self.row(s, last)
        restarts = c.versions in ("restart", "restart_revoke")
        drawn = version + 10 if restarts else 0 if c.versions == "none" else 10 * (last + 2)
        if there:
            yield "update", drawn
            if c.deletes:
                yield "delete", 0 if c.versions == "restart_revoke" else drawn
        else:
            yield "create", 10 if restarts else drawn
            if c.versions == "early_insert" and last:
                yield "create", version - 5

    def truth(self, s: State, content: Content, at_least: int) -> int:
        """The commit that content shows. Absence looks the same after every delete: take it kindly."""
        if content.kind is Kind.VALUE:
            return content.payload[0]
        gone = [at for at in range(len(s.commits) + 1) if not self.row(s, at)[0]]
        return min((at for at in gone if at >= at_least), default=max(gone, default=-1))

    # --- what is sent ------------------------------------------------------------------------

    def write_op(self, s: State, at: int, token: int = 0) -> Op:
        """What a writer tells the cache of its commit."""
        change, version = s.commits[at - 1]
        if self.config.many_rows or self.config.write == "revoke" or not version:
            return Revoke(LIFE_MS)
        if self.config.write == "invalidate":
            return RaiseFloor(version, change, LIFE_MS)
        return self._put(at, change, version, token)

    def log_op(self, s: State, at: int, refresh: bool) -> Op:
        """What the invalidator tells the cache of a commit."""
        change, version = s.commits[at - 1]
        if self.config.many_rows:
            return Revoke(LIFE_MS)
        if not version:
            return Revoke(LIFE_MS, create=change == "create")
        if refresh:
            return self._put(at, change, version, 0)
        return RaiseFloor(version, change, LIFE_MS, LIFE_MS if self.config.tombstones else 0)

    def _put(self, at: int, change: RowOp, version: int, token: int) -> Op:
        content = ABSENCE if change == "delete" else value_of(bytes([at]))
        return Put(content, version, change, LIFE_MS, LIFE_MS, token=token)

    # --- moves -------------------------------------------------------------------------------

    def moves(self, s: State) -> Iterator[Move]:
        yield from self._environment(s)
        yield from self._log(s)
        seen = set()
        holder = self._holder(s)
        for slot, place in enumerate(s.procs):
            if (place, slot == holder) in seen:
                continue
            seen.add((place, slot == holder))
            proc = self._procs.things[place]
            if proc.doing is None:
                if proc.left:
                    yield from self._begin(s, slot, proc)
            else:
                yield from self._go_on(s, slot, proc)

    def _environment(self, s: State) -> Iterator[Move]:
        item: Item | None = self.items.things[s.item]
        if item is not None:
            if s.evict:
                yield "the item is evicted", s._replace(item=0, evict=s.evict - 1), None
            if s.expire and cache.leased(item, NOW_MS):
                ended = self.items.place(item.but(lease_until_ms=NOW_MS))
                yield "the lease expires", s._replace(item=ended, expire=s.expire - 1), None
            if s.age and item.soft_expire_ms > NOW_MS:
                due = self.items.place(item.but(soft_expire_ms=NOW_MS))
                yield "the item is due for a refresh", s._replace(item=due, age=s.age - 1), None
        for at, op in enumerate(s.limbo):
            rest = s._replace(limbo=s.limbo[:at] + s.limbo[at + 1 :])
            yield f"a late {_named(op)} arrives", self._execute(rest, op)[0], None
            yield f"a late {_named(op)} is lost", rest, None

    def _log(self, s: State) -> Iterator[Move]:
        c = self.config
        if s.visible < len(s.commits):
            yield f"commit {s.visible + 1} becomes visible", s._replace(visible=s.visible + 1), None
        if s.applied < len(s.commits):
            n = self._execute(s, self.log_op(s, s.applied + 1, c.refresh == "first_look"))[0]
            yield f"log: first look at {s.applied + 1}", n._replace(applied=s.applied + 1), None
        if c.second_look and s.again < min(s.applied, s.visible):
            n = self._execute(s, self.log_op(s, s.again + 1, c.refresh != "no"))[0]
            yield f"log: second look at {s.again + 1}", n._replace(again=s.again + 1), None
        if s.rewind and s.applied:
            back = s.applied - 1
            yield "the log is rewound", s._replace(applied=back, again=min(s.again, back), rewind=s.rewind - 1), None

    def _begin(self, s: State, slot: int, proc: Proc) -> Iterator[Move]:
        if proc.kind != "writer":  # it starts with its first step: a start before that would be judged more kindly
            yield from self._go_on(s, slot, proc._replace(mark=s.done, doing="read", replies=()))
        elif self.config.write == "populate" and not proc.replies:
            n, _ = self._execute(s, self._renumber(Claim(1, HOLD_MS), slot, proc))
            claimed = proc._replace(doing="commit", replies=("claimed",))
            yield f"writer {slot} claims", self._with(n, slot, claimed), None
        else:
            yield from self._commit(s, slot, proc)

    def _commit(self, s: State, slot: int, proc: Proc) -> Iterator[Move]:
        token = 1 if proc.replies else 0
        at = len(s.commits) + 1
        for change, version in self.choices(s):
            n = s._replace(commits=(*s.commits, (change, version)), visible=s.visible if self.config.log_ahead else at)
            op = self.write_op(n, at, token)
            yield f"writer {slot} commits {at} ({change})", self._with(n, slot, Proc("writer", 1, at, op)), None

    def _go_on(self, s: State, slot: int, proc: Proc) -> Iterator[Move]:
        if proc.doing == "commit":
            yield from self._commit(s, slot, proc)
            return
        if proc.kind == "writer" and s.visible < proc.mark:
            return  # the store answers COMMIT once the commit is visible
        who = f"{'writer' if proc.kind == 'writer' else 'reader'} {slot}"
        step = self._where(proc)
        if s.crash and (proc.kind == "writer" or proc.replies):
            dead = self._with(s._replace(crash=s.crash - 1), slot, Proc(proc.kind, proc.left - 1))
            yield f"{who} dies", dead, None
        if s.cancel and proc.replies:
            yield self._told(s._replace(cancel=s.cancel - 1), slot, proc, CANCELLED, f"{who} is cancelled")
        if isinstance(step, Ended):  # it asks nothing at all
            yield self._end(s, slot, proc, step, f"{who} does nothing")
        elif isinstance(step.question, Load):
            for at in range(max(0, s.visible - self.config.replica_lag), s.visible + 1):
                yield self._told(s, slot, proc, self.loaded(s, at), f"{who} loads {at}")
            if s.load_fail:
                n = s._replace(load_fail=s.load_fail - 1)
                yield self._told(n, slot, proc, LOAD_FAILED, f"{who}'s load fails")
        else:
            op = self._renumber(step.question.op, slot, proc)
            n, answer = self._execute(s, op)
            told = as_told(answer, bool(self.config.load_fail))
            if isinstance(told, Leased):
                told = replace(told, token=step.question.op.token)  # type: ignore[attr-defined]
            yield self._told(n, slot, proc, told, f"{who}: {_named(op)} → {type(answer).__name__}")
            if s.fault:
                n = s._replace(fault=s.fault - 1, limbo=(*s.limbo, op))
                yield self._told(n, slot, proc, UNAVAILABLE, f"{who}: {_named(op)} is not answered")

    # --- one step ----------------------------------------------------------------------------

    def _where(self, proc: Proc) -> Asks | Ended:
        place = self._procs.place(proc)
        if place not in self._replayed:
            self._replayed[place] = replay(self._script(proc), proc.replies)
        return self._replayed[place]

    def _script(self, proc: Proc) -> Callable[[Any], Any]:
        if proc.kind == "writer":
            return lambda port: steps.settle(port, WritePlan((NAME,), proc.doing))
        return lambda port: steps.read(port, self.plans[proc.kind])

    def _told(self, s: State, slot: int, proc: Proc, reply: Any, label: str) -> Move:
        proc = proc._replace(replies=(*proc.replies, reply))
        step = self._where(proc)
        if isinstance(step, Ended):
            return self._end(s, slot, proc, step, label)
        return label, self._with(s, slot, proc), None

    def _end(self, s: State, slot: int, proc: Proc, step: Ended, label: str) -> Move:
        abandoned = tuple(self._renumber(op, slot, proc) for op in step.abandoned)
        s = s._replace(limbo=s.limbo + abandoned)
        bad = None
        if proc.kind == "writer":
            if step.result is True:
                label += ", acknowledged"
                s = s._replace(done=max(s.done, proc.mark))
        elif isinstance(step.result, Found) and proc.kind != "eventual":
            found = step.result
            content = value_of(bytes([found.value])) if found.found else ABSENCE
            at = self.truth(s, content, proc.mark)
            label += f", returns {_shown(content)}"
            if self.config.strong and at < proc.mark:
                bad = f"strong: a read returned {_shown(content)} after {proc.mark} was complete"
            if self.config.when_down == "raise":  # else only an acknowledged write is a promise
                s = s._replace(done=max(s.done, at))
        return label, self._with(s, slot, Proc(proc.kind, proc.left - 1)), bad

    def _execute(self, s: State, op: Op) -> tuple[State, Any]:
        key = (s.item, op)
        if key not in self._applied:
            after, answer = cache.apply(self.items.things[s.item], op, NOW_MS)
            self._applied[key] = self.items.place(self._timeless(after)), answer
        place, answer = self._applied[key]
        return s._replace(item=place), answer

    def _timeless(self, item: Item | None) -> Item | None:
        """Ends of life are moves of the world (`evict`), so their times do not tell items apart."""
        if item is None:
            return None
        until = item.stale_until_ms if self.config.load_fail else 0
        return item.but(expires_ms=0, as_of_us=0, stale_until_ms=until)

    # --- equal futures, one state --------------------------------------------------------------

    def _renumber(self, op: Op, slot: int, proc: Proc) -> Op:
        """A process counts its nonces from 1; in the world each names its holder and its operation."""
        token = getattr(op, "token", 0)
        if not token:
            return op
        key = (op, slot, proc.left)
        if key not in self._renamed:
            self._renamed[key] = replace(op, token=_token(slot, proc.left, token))
        return self._renamed[key]

    def _holder(self, s: State) -> int:
        item = self.items.things[s.item]
        return item.lease >> 16 if item is not None and item.lease else -1

    def _with(self, s: State, slot: int, proc: Proc) -> State:
        procs = (*s.procs[:slot], self._procs.place(proc), *s.procs[slot + 1 :])
        return s._replace(procs=procs)

    def tidy(self, s: State) -> State:
        """Order the processes, so that it does not matter who is who, and forget dead leases."""
        item: Item | None = self.items.things[s.item]
        lease = 0 if item is None else item.lease
        if lease and lease != ORPHAN:
            proc = self._procs.things[s.procs[lease >> 16]]
            waits = any(getattr(op, "token", 0) == lease for op in s.limbo)
            if not waits and (proc.doing is None or proc.left != (lease >> 8) & 255):
                lease = ORPHAN
        holder = lease >> 16 if lease and lease != ORPHAN else -1
        order = sorted(range(len(s.procs)), key=lambda slot: (s.procs[slot], slot != holder))
        moved = {old: new for new, old in enumerate(order)}
        if lease and lease != ORPHAN:
            lease = moved[holder] << 16 | lease & 0xFFFF
        if item is not None and lease != item.lease:
            s = s._replace(item=self.items.place(item.but(lease=lease)))
        limbo = tuple(_moved(op, moved) for op in s.limbo)
        return s._replace(procs=tuple(s.procs[slot] for slot in order), limbo=limbo)

    # --- what must hold when nothing is under way ------------------------------------------------

    def quiet(self, s: State) -> bool:
        """Nothing is in flight, and the log is fully applied."""
        last = len(s.commits)
        looked = s.applied == last == s.visible and (s.again == last or not self.config.second_look)
        return looked and not s.limbo and all(self._procs.things[place].doing is None for place in s.procs)

    def settled(self, s: State) -> str | None:
        """Nothing fresh differs from the store."""
        item: Item | None = self.items.things[s.item]
        if item is None or not item.fresh:
            return None
        last = len(s.commits)
        if self.truth(s, item.content, last) == last:
            return None
        there = "the row of commit" if self.row(s, last)[0] else "no row after"
        return f"settle: the item shows {_shown(item.content)}, the store has {there} {last}"

    def heals(self, s: State) -> str | None:
        """Two more reads, alone, with the lease of a dead holder over, leave a hit behind."""
        item: Item | None = self.items.things[s.item]
        if item is not None:
            item = item.but(lease_until_ms=0)
        for kind in self.plans:
            if kind == "no_fill":
                continue
            after = self._read_alone(s, kind, self._read_alone(s, kind, item))
            if after is None or not after.fresh:
                return f"heals: nothing is under way, and yet two {kind} reads leave nothing to hit"
        return None

    def _read_alone(self, s: State, kind: str, item: Item | None) -> Item | None:
        replies: tuple[Any, ...] = ()
        while not isinstance(step := self._where(Proc(kind, 1, 0, "read", replies)), Ended):
            if isinstance(step.question, Load):
                reply: Any = self.loaded(s, len(s.commits))
            else:
                item, reply = cache.apply(item, step.question.op, NOW_MS)
            replies = (*replies, reply)
        return item


def _plan(kind: str, config: Config) -> ReadPlan:
    return ReadPlan(
        key="key",
        names=(NAME,),
        pace=Pace(hold_ms=HOLD_MS, wait_ms=2, wait_ms_max=1 if kind == "patient" else 0),
        lives=Lives(LIFE_MS, LIFE_MS, LIFE_MS, jitter=0.0, early=0.5 if config.early_refresh else 0.0),
        decode=lambda payload: payload[0],
        strong=kind != "eventual",
        mode=Mode.NO_FILL if kind == "no_fill" else Mode.ON,
        stale=kind == "eventual",
        joins=False,
        store_when_down=config.when_down == "store",
    )


def _token(slot: int, left: int, nonce: int) -> int:
    return slot << 16 | left << 8 | nonce


def _moved(op: Op, moved: dict[int, int]) -> Op:
    token = getattr(op, "token", 0)
    return replace(op, token=moved[token >> 16] << 16 | token & 0xFFFF) if token else op


def _named(op: Op) -> str:
    name = type(op).__name__
    if isinstance(op, Put):
        return f"{name} {_shown(op.content)}"
    return f"{name} {op.version}" if isinstance(op, RaiseFloor) else name


def _shown(content: Content) -> str:
    return str(content.payload[0]) if content.kind is Kind.VALUE else "absence"
