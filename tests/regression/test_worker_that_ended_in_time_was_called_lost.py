"""`loadgen check` failed now and then on a busy machine: "worker 1 ended early: it said nothing".

The worker had done its shift, said so and ended, and the coordinator looked at its process before it had read what the
worker had said. As an order of events: shift ends · worker says "done" and ends · coordinator wakes late and finds no
process and no "done" · the thread that listens reads it. The tests of the whole command (`tests/integration`) wake in
time on any machine that is not overloaded.
"""

from __future__ import annotations

import time
from threading import Event, Thread
from types import SimpleNamespace
from typing import cast

import pytest

from loadgen.runner import Fleet, Worker, WorkerFailed
from loadgen.worker import WorkerSpec

SPEC = cast("WorkerSpec", SimpleNamespace(number=1, role="read"))


class Gone(Worker):
    """A worker whose process has ended; what it said last (`last`) is read only when somebody waits for it."""

    def __init__(self, *, last: bool) -> None:
        self.spec, self.frame, self.killed, self.done = SPEC, {}, False, False
        self._process = cast("object", SimpleNamespace(poll=lambda: 0))  # type: ignore[assignment]
        self._listener = Thread(target=self._hear, args=(last,), daemon=True)
        self._listener.start()

    def _hear(self, last: bool) -> None:
        Event().wait(0.3)
        self.done = last

    def last_words(self) -> str:
        return "nothing"


def run(worker: Worker) -> None:
    fleet = Fleet([SPEC])
    fleet.workers = [worker]
    fleet._end_ns = time.monotonic_ns() + 50_000_000
    fleet.run(0.01, lambda _: None)


def test_worker_that_said_it_was_done_is_not_lost_because_it_was_not_heard_yet() -> None:
    run(Gone(last=True))


def test_worker_that_ended_without_a_word_is_lost() -> None:
    with pytest.raises(WorkerFailed, match="worker 1 ended early"):
        run(Gone(last=False))
