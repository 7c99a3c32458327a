"""A stage for races: one store, one key, a change log, and processes that a test moves by hand.

`Ours` is `steps.py` over `item.apply`; `tests.races.naive` has the same surface over get, set and delete.
A test says the order of events; nothing runs by itself and nothing sleeps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from cachelib import steps
from cachelib.drivers import AskingPort, Execute, Join, Load, Question
from cachelib.errors import CacheError
from cachelib.item import apply
from cachelib.levels import FREE, strong_ground
from cachelib.model import (
    ABSENCE,
    Answer,
    Content,
    Item,
    Name,
    Op,
    Put,
    RaiseFloor,
    Revoke,
    RowOp,
    value_of,
)
from cachelib.policy import Lives, Mode, Pace
from cachelib.port import Found, Loaded
from cachelib.readplan import ReadPlan
from cachelib.steps import WritePlan

NAME = b"key"
HOUR_MS = 3_600_000
HOLD_MS = 5_000
LIFE_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Commit:
    """One committed change, as the change log tells it."""

    change: RowOp
    value: str | None
    version: int


@dataclass
class Store:
    """One row and its history. `visible` is behind where the log shows a commit before readers see it."""

    commits: list[Commit] = field(default_factory=lambda: [Commit("create", "first", 10)])
    visible: int = 1
    loads: int = 0

    def commit(self, value: str | None, version: int | None = None, visible: bool = True) -> Commit:
        last = self.commits[-1]
        change: RowOp = "delete" if value is None else "create" if last.value is None else "update"
        highest = max(commit.version for commit in self.commits)
        self.commits.append(Commit(change, value, highest + 10 if version is None else version))
        if visible:
            self.visible = len(self.commits)
        return self.commits[-1]

    def show(self) -> None:
        """Every commit is now visible to readers."""
        self.visible = len(self.commits)

    def load(self, behind: int = 0) -> Commit:
        self.loads += 1
        return self.commits[self.visible - 1 - behind]

    @property
    def truth(self) -> str | None:
        return self.commits[-1].value


class Clock:
    """The server's time; a client may believe another one."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000


class Ours:
    """The machines of this project."""

    naive = False

    def __init__(self, *, writer: str = "put", many_rows: bool = False, tombstones: bool = False, **_: Any) -> None:
        self.store, self.clock = Store(), Clock()
        self.writer, self.many_rows, self.tombstone_ms = writer, many_rows, HOUR_MS if tombstones else 0
        self.item: Item | None = None
        self.full = False
        self.notes: list[str] = []
        self.decode = bytes.decode
        self._nonces = itertools.count(1)
        self.start = 0
        """Which start of the server answers."""
        self.since_us: int | None = None
        """When this process met it, where it has not always known it."""
        self.caught_up = True

    # --- processes ---------------------------------------------------------------------------

    def reader(self, *, strong: bool = True, skew_ms: int = 0) -> Reader:
        return Reader(self, strong, skew_ms)

    def reader_of(self, plan: ReadPlan) -> Reader:
        """A read that was planned elsewhere."""
        return Reader(self, plan.strong, 0, plan)

    def read(self) -> str | None:
        """One read from its beginning to its end. Time passes while it waits."""
        return self.reader().fill()

    def tell(self, commit: Commit) -> bool:
        """A writer's cache step."""
        return bool(_run(self, steps.settle(self.port(), WritePlan((NAME,), self._write_op(commit)))))

    def write(self, value: str | None, version: int | None = None) -> Commit:
        """A whole write: commit, then the cache step."""
        commit = self.store.commit(value, version)
        self.tell(commit)
        return commit

    def apply_log(self, commit: Commit) -> None:
        """The invalidator applies one event."""
        self.execute(self._log_op(commit))

    def unknown_commit(self) -> None:
        """The outcome of a COMMIT was lost: what the writer does then."""
        self.execute(Revoke(LIFE_MS))

    # --- what servers do ---------------------------------------------------------------------

    def evict(self) -> None:
        self.item = None

    restart = evict

    def come_back_with(self, item: Item | None) -> None:
        """The server is started again from an old file, or a replica that was behind takes its place."""
        self.item, self.start, self.caught_up = item, self.start + 1, False
        self.clock.now_ms += 1
        self.since_us = self.clock.now_ms * 1000

    def let_the_lease_end(self) -> None:
        self.clock.now_ms += HOLD_MS + 1

    def execute(self, op: Op, skew_ms: int = 0) -> Answer:
        if self.full and not isinstance(op, Revoke):
            # Redis with noeviction: what may grow fails; the client falls back to UNLINK, which works.
            if isinstance(op, Put | RaiseFloor):
                self.item = None
            raise steps.CacheUnavailable("out of memory")
        now_ms = self.clock.now_ms + skew_ms
        self.item, answer = apply(self.item, op, now_ms)
        return answer

    def port(self, skew_ms: int = 0) -> Any:
        return AskingPort(_Sides(self, skew_ms))  # type: ignore[arg-type]

    def loaded(self, commit: Commit) -> Loaded:
        as_of_us = self.clock.now_ms * 1000
        if commit.value is None:
            return Loaded(ABSENCE, None, False, 0, as_of_us)
        version = 0 if self.many_rows else commit.version
        return Loaded(value_of(commit.value.encode()), commit.value, True, version, as_of_us)

    def plan(self, strong: bool) -> ReadPlan:
        pace = Pace(hold_ms=HOLD_MS, wait_ms=1_000, wait_ms_max=60_000)
        lives = Lives(LIFE_MS, LIFE_MS, LIFE_MS, jitter=0.0, early=0.0)
        start = self.start
        ground = strong_ground(self.caught_up, self.since_us, lambda: self.start == start) if strong else FREE
        return ReadPlan(
            "key",
            (NAME,),
            pace,
            lives,
            self.decode,
            requirement=ground.requirement,
            holds=ground.holds,
            proven=ground.proven,
            strong=strong,
            mode=Mode.ON,
            stale=False,
            joins=False,
        )

    def _write_op(self, commit: Commit) -> Op:
        if self.many_rows:
            return Revoke(LIFE_MS)
        if self.writer == "put":
            return Put(_content(commit), commit.version, commit.change, LIFE_MS, LIFE_MS)
        return RaiseFloor(commit.version, commit.change, LIFE_MS)

    def _log_op(self, commit: Commit) -> Op:
        if self.many_rows:
            return Revoke(LIFE_MS)
        return RaiseFloor(commit.version, commit.change, LIFE_MS, self.tombstone_ms)


class Reader:
    """One read, moved by hand: `ask` up to the load, `load`, `fill` up to the end."""

    def __init__(self, world: Ours, strong: bool, skew_ms: int, plan: ReadPlan | None = None) -> None:
        self._world, self._skew_ms = world, skew_ms
        self._steps = steps.read(world.port(skew_ms), plan or world.plan(strong))
        self._question: Question | None = self._steps.send(None)
        self.found: Found | None = None

    def ask(self) -> Reader:
        """Ask the cache; wait for others' leases, if need be. Ends before the load."""
        while self._question is not None and not isinstance(self._question, Load):
            self._reply(_answer(self._world, self._question, self._skew_ms))
        return self

    def ask_once(self) -> Reader:
        """One question, no waiting."""
        assert isinstance(self._question, Execute)
        self._reply(_answer(self._world, self._question, self._skew_ms))
        return self

    @property
    def loads_next(self) -> bool:
        return isinstance(self._question, Load)

    def load(self, behind: int = 0) -> Reader:
        """Ask the store (a replica that is so many commits behind). A read that hit has nothing to load."""
        self.ask()
        if self.loads_next:
            self._reply(self._world.loaded(self._world.store.load(behind)))
        return self

    def fill(self) -> str | None:
        """Go on to the end, whatever is missing, and say what was read."""
        while self._question is not None:
            self.load()
        assert self.found is not None
        return self.found.value if self.found.found else None

    def die(self) -> None:
        """The process is gone; nothing more comes from it."""
        self._question = None

    def fail(self, error: CacheError) -> None:
        """The load fails."""
        try:
            self._question = self._steps.throw(error)
            while True:
                self._question = self._steps.send(_answer(self._world, self._question, self._skew_ms))
        except (StopIteration, CacheError):
            self._question = None

    def _reply(self, reply: Any) -> None:
        try:
            failed = isinstance(reply, CacheError)
            self._question = self._steps.throw(reply) if failed else self._steps.send(reply)
        except StopIteration as done:
            self._question, self.found = None, done.value


class _Sides:
    """What a port gives without asking."""

    def __init__(self, world: Ours, skew_ms: int) -> None:
        self._world, self._skew_ms = world, skew_ms

    def now_ms(self) -> int:
        return self._world.clock.now_ms + self._skew_ms

    def nonce(self) -> int:
        return next(self._world._nonces)

    def jitter(self) -> float:
        return 0.5

    def note(self, event: str) -> None:
        self._world.notes.append(event)

    def abandon(self, name: Name, op: Op) -> None:
        self._world.execute(op)

    def take_off(self, name: Name) -> None:
        pass

    def land(self, name: Name, landing: object) -> None:
        pass


def _answer(world: Ours, question: Question, skew_ms: int = 0) -> Any:
    """What the stage replies; a pause lets its time pass."""
    if isinstance(question, Execute):
        try:
            return world.execute(question.op, skew_ms)
        except CacheError as error:
            return error
    if isinstance(question, Load):
        return world.loaded(world.store.load())
    if not isinstance(question, Join):
        world.clock.now_ms += question.ms
    return None


def _run(world: Ours, coroutine: Any) -> Any:
    try:
        question = coroutine.send(None)
        while True:
            reply = _answer(world, question)
            failed = isinstance(reply, CacheError)
            question = coroutine.throw(reply) if failed else coroutine.send(reply)
    except StopIteration as done:
        return done.value


def _content(commit: Commit) -> Content:
    return ABSENCE if commit.value is None else value_of(commit.value.encode())
