"""A short form of `make verify-long`: it finds a look-aside cache stale, and ours not, under faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak.registers import Board, check
from tests.soak.verify_long import round_of

pytestmark = [pytest.mark.server, pytest.mark.slow]
HOT = {"keys": 4, "writes_per_s": 100.0}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    made = Board(tmp_path / "board")
    made.begun[3] = 10
    return made


@pytest.mark.parametrize(
    ("row", "least", "says"),
    [
        ({"id": 3, "count": 9}, 9, ""),
        ({"id": 3, "count": 10}, 9, ""),
        ({"id": 3, "count": 8}, 9, "count 8, and 9 was"),
        ({"id": 3, "count": 11}, 9, "nobody has begun"),
        ({"id": 4, "count": 9}, 9, "the row of key 4"),
        (None, 7, ""),
        (None, 8, "no row"),
    ],
)
def test_register_shows_what_was_acknowledged_or_later_and_was_begun(
    board: Board, row: Any, least: int, says: str
) -> None:
    board.gone_begun[3] = 7
    said = check(board, 3, row, least)
    assert said.startswith(says) if not says else says in said


@pytest.mark.parametrize(("count", "wrong"), [(5, False), (6, True), (10, True), (11, False)])
def test_count_that_a_restored_store_has_lost_may_not_be_shown(board: Board, count: int, wrong: bool) -> None:
    board.begun[3] = 12
    board.lost_above[3], board.lost_upto[3] = 5, 10
    said = check(board, 3, {"id": 3, "count": count}, 5)
    assert ("which the store lost" in said) is wrong


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_strong_reads_survive_restored_stores_promoted_replicas_and_moving_nodes(backend: str) -> None:
    found = round_of(backend, 90, 2, disasters=True, **HOT)
    assert not found.invalid
    assert found.stale == 0, found.examples
    assert found.settled, found.examples
    assert {"restored store", "moved nodes"} <= set(found.faults)


def test_look_aside_cache_is_found_stale() -> None:
    found = round_of("redis", 60, 1, naive=True, **HOT)
    assert found.stale > 0
    assert found.examples


@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_strong_reads_of_hot_keys_are_never_stale_under_faults(backend: str) -> None:
    found = round_of(backend, 15, 1, **HOT)
    assert not found.invalid
    assert found.stale == 0, found.examples
    assert found.settled, found.examples
    assert found.reads > 500
    assert sum(found.faults.values()) > 0
