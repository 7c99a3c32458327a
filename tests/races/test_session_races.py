"""What a session must not be shown, each as an order of events; a naive cache (and one without the rule) shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachelib.history import History, Mark, key_mark
from cachelib.port import Found
from tests.races.naive import Naive
from tests.races.world import Ours

KEY = key_mark("entity", b"key")


class Client:
    """A session of one process over a server; `binding`: which start of it answers."""

    def __init__(self, history: History | None) -> None:
        self.history = history

    def read(self, server: Any, binding: int = 1) -> str | None:
        """To the end."""
        if self.history is None or server.naive:
            return server.read()
        met = self.history.meet(binding, 1)
        ground, mark = self.history.ground(KEY, met)
        plan = server.plan(strong=False)
        plan = replace(plan, requirement=ground.requirement, joins_from_us=ground.joins_from_us)
        reader = server.reader_of(plan)
        value = reader.fill()
        found: Found = reader.found
        self.history.saw(KEY, mark, found, met, server.clock.now_ms * 1000)
        return value


@pytest.fixture(params=[Ours, Naive], ids=["ours", "naive"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def pair(kind: Any) -> tuple[Any, Any]:
    """Two servers over one store, as two regions' caches, or two pools."""
    one, other = kind(writer="invalidate"), kind(writer="invalidate")
    other.store, other.clock = one.store, one.clock
    return one, other


def test_reads_that_go_back_from_one_server_to_another(kind: Any) -> None:
    one, other = pair(kind)
    session = Client(History(""))
    other.read()
    one.write("second")
    assert session.read(one) == "second"
    assert (session.read(other, binding=2) == "second") is not one.naive


def test_own_write_that_the_server_was_not_told(kind: Any) -> None:
    server = kind(writer="invalidate")
    session = Client(History(""))
    session.read(server)
    commit = server.store.commit("second")  # its cache step is lost
    assert session.history is not None
    session.history.wrote({KEY: Mark(commit.version)}, server.clock.now_ms * 1000)
    assert (session.read(server) == "second") is not server.naive


def test_absence_that_turns_into_the_old_row(kind: Any) -> None:
    one, other = pair(kind)
    session = Client(History(""))
    other.read()
    other.clock.now_ms += 1
    one.write(None)
    assert session.read(one) is None
    assert (session.read(other, binding=2) is None) is not one.naive


def test_server_that_comes_back_old_after_the_session_saw_more(kind: Any) -> None:
    server = kind(writer="invalidate")
    session = Client(History(""))
    server.read()
    old = server.item
    server.write("second")
    assert session.read(server) == "second"
    server.come_back_with(old)
    assert (session.read(server, binding=2) == "second") is not server.naive


def test_session_that_is_shown_nothing_new_loads_nothing() -> None:
    server = Ours()
    session = Client(History(""))
    session.read(server)
    loads = server.store.loads
    for _ in range(10):
        assert session.read(server) == "first"
    assert server.store.loads == loads
