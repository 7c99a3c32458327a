"""A stop used a client that is for one thread while that thread still hung in it.

Order of events: a commit, or a dead letter, does not come back · SIGTERM · `stop` waits its time, then closes the
client, or commits itself, beside the thread · two threads in one client: an error that nobody knows, or no end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from invalidator.books import Books
from invalidator.dead_letters import Letter
from invalidator.letterbox import Letterbox
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.settings import ApplySettings, DeadLetterSettings, LogSettings, Settings
from invalidator.sources.base import Committed

WAIT_S = 20.0
LOG = replace(LogSettings(), level="critical")


class Hangs:
    """A client that does not come back; notes who uses it."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.end = threading.Event()
        self.users: list[str] = []

    def _hang(self) -> None:
        self.users.append(threading.current_thread().name)
        self.inside.set()
        self.end.wait(WAIT_S)

    def keep(self, letters: Sequence[Letter]) -> None:
        self._hang()

    def done(self) -> Committed:
        return Committed({"0": "7"}, frozenset(["node"]))

    def commit(self, committed: Committed) -> None:
        self._hang()

    def close(self) -> None:
        self.users.append(threading.current_thread().name)


@pytest.fixture
def client() -> Iterator[Hangs]:
    made = Hangs()
    yield made
    made.end.set()


def test_letterbox_leaves_a_client_that_hangs(client: Hangs) -> None:
    box = Letterbox(client, DeadLetterSettings(), ApplySettings(), Metrics(), open_log(LOG))
    box.start()
    box.post([Letter("bad_key", "why", "0", "1")])
    assert client.inside.wait(WAIT_S)
    box.stop(0.01)
    assert client.users == ["letterbox"]


def test_books_leave_a_source_that_hangs(client: Hangs) -> None:
    settings = replace(Settings(), apply=replace(ApplySettings(), commit_s=0.01))
    books = Books(settings, client, client, Metrics(), open_log(LOG))  # type: ignore[arg-type]
    books.place(None, ["0"])
    books.start()
    assert client.inside.wait(WAIT_S)
    books.stop(0.01)
    assert client.users == ["books"]
    assert "has not come back" in books.last_error
