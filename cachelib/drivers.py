"""How coroutines over a `Port` are run: to the end at once, or many in lockstep.

A port whose methods never suspend but for their sockets (threads) makes `run_now` a plain call. A batch is N
single-key coroutines that each yield what they ask; `lockstep` collects one round's questions
and asks them together: one pipeline for all operations, one batch for all loads.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from cachelib.errors import CacheError
from cachelib.model import Answer, Name, Op
from cachelib.overlap import to_its_end
from cachelib.port import Landing, Loaded, Port

T = TypeVar("T")

run_now = to_its_end
"""Run a coroutine whose port never suspends, or only where a server's answer is on its way."""


# --- questions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Execute:
    """`Port.execute`, asked."""

    name: Name
    op: Op


@dataclass(frozen=True, slots=True)
class Load:
    """`Port.load`, asked."""

    key: Any


@dataclass(frozen=True, slots=True)
class Join:
    """`Port.join`, asked."""

    name: Name
    ms: int


@dataclass(frozen=True, slots=True)
class Wait:
    """`Port.wait`, asked."""

    name: Name
    ms: int


Question: TypeAlias = Execute | Load | Join | Wait


@types.coroutine
def _ask(question: Question) -> Generator[Question, Any, Any]:
    return (yield question)


class AskingPort:
    """Hands every question to whoever drives the coroutine; the rest goes to `world`."""

    def __init__(self, world: Port) -> None:
        self._world = world
        self.now_ms = world.now_ms
        self.nonce = world.nonce
        self.jitter = world.jitter
        self.note = world.note
        self.abandon = world.abandon
        self.take_off = world.take_off
        self.land = world.land

    async def execute(self, name: Name, op: Op) -> Answer:
        """See `Port.execute`."""
        return cast(Answer, await _ask(Execute(name, op)))

    async def load(self, key: Any) -> Loaded:
        """See `Port.load`."""
        return cast(Loaded, await _ask(Load(key)))

    async def join(self, name: Name, ms: int) -> Landing:
        """See `Port.join`."""
        return cast(Landing, await _ask(Join(name, ms)))

    async def wait(self, name: Name, ms: int) -> None:
        """See `Port.wait`."""
        await _ask(Wait(name, ms))

    def lead(self, name: Name) -> bool:
        """See `Port.lead`."""
        return False


# --- many in lockstep ------------------------------------------------------------------------


class BatchPort(Port, Protocol):
    """A port that can also ask many things in one go. An error stands in its place."""

    async def execute_many(self, batch: Sequence[tuple[Name, Op]]) -> Sequence[Answer | CacheError]:
        """`execute` for many names, pipelined; names may repeat, their order is kept."""

    async def load_many(self, keys: Sequence[Any]) -> Sequence[Loaded | CacheError]:
        """`load` for many keys, in as few statements as the loaders allow."""


async def lockstep(port: BatchPort, steps: Sequence[Coroutine[Question, Any, T]]) -> list[T | CacheError]:
    """Run all coroutines to their ends, a round at a time; an error ends only its own."""
    running = _Running(steps)
    try:
        for at in range(len(steps)):
            running.go_on(at, None)
        while running.questions:
            await _round(port, running)
    except BaseException as failure:
        running.throw_all(failure)
        raise
    return cast("list[T | CacheError]", running.results)


async def _round(port: BatchPort, running: _Running) -> None:
    # Operations before loads, loads before pauses: two batches that hold each other's leases
    # would else wait them out.
    executes = running.asking(Execute)
    if executes:
        answers = await port.execute_many([(q.name, q.op) for _, q in executes])
        return running.reply([at for at, _ in executes], answers)
    loads = running.asking(Load)
    if loads:
        rows = await port.load_many([q.key for _, q in loads])
        return running.reply([at for at, _ in loads], rows)
    joins = running.asking(Join)
    if joins:
        # A batch waits for nobody's flight, or one slow key would hold up all: it asks the node,
        # and a key that another call is loading shows as held.
        return running.reply([at for at, _ in joins], [None] * len(joins))
    return await _pause(port, running)


async def _pause(port: BatchPort, running: _Running) -> None:
    """One pause for those that want about the same; the others have so much less left of theirs."""
    waits = running.asking(Wait)
    shortest = min(q.ms for _, q in waits)
    pause = max(q.ms for _, q in waits if q.ms <= 2 * shortest)
    await port.wait(waits[0][1].name, pause)
    running.questions.update({at: Wait(q.name, q.ms - pause) for at, q in waits if q.ms > pause})
    over = [at for at, q in waits if q.ms <= pause]
    return running.reply(over, [None] * len(over))


class _Running:
    """The coroutines of one batch and what each is asking."""

    def __init__(self, steps: Sequence[Coroutine[Question, Any, Any]]) -> None:
        self._steps = steps
        self.questions: dict[int, Question] = {}
        self.results: list[Any] = [None] * len(steps)

    def asking(self, kind: type[T]) -> list[tuple[int, T]]:
        return [(at, q) for at, q in self.questions.items() if isinstance(q, kind)]

    def reply(self, ats: Sequence[int], replies: Sequence[Any]) -> None:
        for at, reply in zip(ats, replies, strict=True):
            if isinstance(reply, CacheError):
                self.go_on(at, None, reply)
            else:
                self.go_on(at, reply)

    def go_on(self, at: int, reply: Any, failure: BaseException | None = None) -> None:
        """Let one coroutine run to its next question, its result or its error."""
        self.questions.pop(at, None)
        try:
            step = self._steps[at]
            self.questions[at] = step.send(reply) if failure is None else step.throw(failure)
        except StopIteration as done:
            self.results[at] = done.value
        except CacheError as error:
            self.results[at] = error

    def throw_all(self, failure: BaseException) -> None:
        """The driver itself was interrupted: let every coroutine clean up."""
        for at in list(self.questions):
            step = self._steps[at]
            del self.questions[at]
            try:
                step.throw(failure)
            except BaseException as end:  # noqa: BLE001 - each ends in its own way; the cause is raised by the caller
                self.results[at] = end
        for step in self._steps:
            step.close()  # those too that never began
