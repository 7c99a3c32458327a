"""Virtual time: processes, their tasks and their clocks, one event after the other. Deterministic.

A task is a coroutine that yields what it waits for. Nothing runs at the same time as anything
else; between two pauses a task is alone, as a thread would be between two calls of the network.
"""

from __future__ import annotations

import heapq
import types
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, TypeAlias

START_US = 1_700_000_000_000_000
"""When every simulation begins, microseconds since the Unix epoch."""

EVENTS_MAX = 400_000
"""A run that takes more turns in a circle: every wait is bounded (I10)."""


class Signal:
    """Something that tasks wait for, once or again and again."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[Task, int]] = []


Question: TypeAlias = tuple[int, Signal | None]
"""Wait so many microseconds, or until the signal."""
Steps: TypeAlias = Coroutine[Question, Any, Any]


@types.coroutine
def pause(us: int) -> Generator[Question, Any, None]:
    """Let so many microseconds pass."""
    yield us, None


@types.coroutine
def until(signal: Signal, us: int) -> Generator[Question, Any, bool]:
    """Wait for a signal, so many microseconds at most. False: it did not come."""
    came: bool = yield us, signal
    return came


class Process:
    """One program on one machine: it may be stopped for a while, die, and have a wrong clock."""

    __slots__ = ("alive", "name", "paused_until_us", "skew_us")

    def __init__(self, name: str, skew_us: int = 0) -> None:
        self.name = name
        self.skew_us = skew_us
        self.alive = True
        self.paused_until_us = 0


class Task:
    """One call that a process is in."""

    __slots__ = ("done", "ended", "error", "loads", "process", "random", "result", "steps", "ticket")

    def __init__(self, process: Process, steps: Steps, random: Random) -> None:
        self.process = process
        self.steps = steps
        self.random = random
        self.ticket = 0
        """Counts its waits, so that what woke it from an earlier one wakes it no more."""
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = Signal()
        self.loads = 0
        """How often it asked the store for rows."""


class Loop:
    """Runs events in the order of their virtual time."""

    def __init__(self, random: Random) -> None:
        self.now_us = START_US
        self.random = random
        self.nobody = Task(Process("nobody"), _NOTHING, random)
        self.current = self.nobody
        self.story: list[str] | None = None
        self.crashed: BaseException | None = None
        """What a task raised that nobody expects."""
        self.events = 0
        self.tasks: list[Task] = []
        self._ended = False
        """A task has, since that was last looked at."""
        self._heap: list[tuple[int, int, Any, Any, Any]] = []
        self._number = 0

    # --- what tasks and tests call -----------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        """Add an event to the story, where one is told."""
        if self.story is not None:
            self.story.append(f"{(self.now_us - START_US) / 1000:12.3f} ms  {who:12s} {what}")

    def spawn(self, process: Process, steps: Steps, random: Random, delay_us: int = 0) -> Task:
        """Begin a task."""
        task = Task(process, steps, random)
        self.tasks.append(task)
        self._push(self.now_us + delay_us, task, 0, None)
        return task

    def at(self, delay_us: int, deed: Callable[[], Any]) -> None:
        """Do something later: what no process does, such as a packet that arrives."""
        self._push(self.now_us + delay_us, None, 0, deed)

    def fire(self, signal: Signal) -> None:
        """Wake whoever waits."""
        if signal.waiting:
            waiting, signal.waiting = signal.waiting, []
            for task, ticket in waiting:
                self._push(self.now_us, task, ticket, True)

    def throw(self, task: Task, error: BaseException) -> None:
        """Interrupt a task where it waits."""
        if not task.done and task.process.alive:
            task.ticket += 1
            self._push(self.now_us, task, task.ticket, error)

    # --- running -----------------------------------------------------------------------------

    def run(self, until_us: int, enough: Callable[[], bool] | None = None) -> None:
        """Let time pass, up to there, or until it is enough: that is asked at first and whenever a task has ended."""
        heap, pop, step = self._heap, heapq.heappop, self._step
        if enough is not None and enough():
            return
        while heap and heap[0][0] <= until_us and self.crashed is None:
            now_us, _, task, ticket, value = pop(heap)
            if now_us > self.now_us:
                self.now_us = now_us
            self.events += 1
            if self.events > EVENTS_MAX:
                raise RuntimeError(f"more than {EVENTS_MAX} events: something turns in a circle")
            if task is None:
                value()
            elif task.ticket == ticket and task.process.alive:
                if task.process.paused_until_us > self.now_us:
                    self._push(task.process.paused_until_us, task, ticket, value)
                    continue
                step(task, value)
            if self._ended:
                self._ended = False
                if enough is not None and enough():
                    return
        if not heap or heap[0][0] > until_us:
            self.now_us = max(self.now_us, until_us)

    def close(self) -> None:
        """Let go of tasks that nobody resumes any more."""
        for task in self.tasks:
            if not task.done:
                try:
                    task.steps.close()
                except Exception:  # noqa: BLE001 - its clean-up awaited something, or failed: there is nobody to tell
                    task.done = True
        self.tasks.clear()
        self._heap.clear()

    def _push(self, at_us: int, task: Task | None, ticket: int, value: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_us, self._number, task, ticket, value))

    def _step(self, task: Task, value: Any) -> None:
        self.current = task
        try:
            if value is None or value is True or value is False:
                delay_us, signal = task.steps.send(value)
            else:
                delay_us, signal = task.steps.throw(value)
        except StopIteration as end:
            self._end(task, end.value, None)
            return
        except BaseException as error:  # noqa: BLE001 - whoever waits for the task looks at it
            self._end(task, None, error)
            return
        finally:
            self.current = self.nobody
        task.ticket = ticket = task.ticket + 1
        self._number = number = self._number + 1
        if signal is not None:
            signal.waiting.append((task, ticket))
            heapq.heappush(self._heap, (self.now_us + delay_us, number, task, ticket, False))
        else:
            heapq.heappush(self._heap, (self.now_us + delay_us, number, task, ticket, None))

    def _end(self, task: Task, result: Any, error: BaseException | None) -> None:
        task.done, task.result, task.error = True, result, error
        self._ended = True
        task.ticket += 1
        self.fire(task.ended)


async def _nothing() -> None:
    pass


_NOTHING = _nothing()
_NOTHING.close()
