"""The verifier is to be believed: silent beside a shop without a bug, and it finds bugs that are made in one.

A part of `make verifier`, which goes on to a million answers and has all ten bugs.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.verifier.bugs import BUGS
from tests.verifier.street import street, until_found

CHECKS = 5_000
WAIT_S = 90.0
QUICK = ("a fill goes below the floor", "a revoke does nothing")
"""Those that every change shows: of a row, and of a list."""


@pytest.fixture
def caches(redis_url: str, memcached_url: str) -> list[str]:
    return [redis_url, memcached_url]


def test_no_alarm_beside_a_shop_without_a_bug(caches: list[str], tmp_path: Path) -> None:
    with street(tmp_path, caches) as shop:
        began_s = time.monotonic()
        while (status := shop.status())["checks"] < CHECKS and time.monotonic() - began_s < WAIT_S:
            time.sleep(0.2)
    assert status["alarms"] == 0, status["last"]
    assert status["checks"] >= CHECKS
    assert sum(row["served"] for row in status["ages"]) > CHECKS / 10


@pytest.mark.parametrize("bug", QUICK)
def test_a_dropped_rule_is_found_on_both_servers(caches: list[str], tmp_path: Path, bug: str) -> None:
    with street(tmp_path, caches, bug) as shop:
        found, _ = until_found(shop, len(caches), WAIT_S)
        assert len(found) == 2, f"{found}\n{shop.status()}"


def test_there_are_ten_bugs() -> None:
    assert len(BUGS) == 10
