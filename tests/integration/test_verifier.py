"""`invalidator verify` as people run it: real servers, a daemon beside it, and things that it must tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache
from cachelib.envelope import decode, encode
from cachelib.model import Item, value_of
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, Verifying, client, tier, until

QUICK = {"verify": {"after": ["100ms", "1s", "3s"], "loads": 1000, "tolerate": "1s", "absent_after": "500ms"}}


@pytest.fixture(params=["redis", "memcached"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def shop(sqlite_url: str) -> Any:
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


def overtake(cache: Cache, number: int = 7, text: bytes = b"x") -> None:
    """What no operation may do: an older item in the place of the one that is there."""
    _, name = name_of(cache, number)
    raw = cache.backend.get(name)
    assert raw is not None
    plant(cache, name, decode(raw).but(version=1, floor=1, content=value_of(text)))


def test_a_correct_system_is_fine_and_leaves_no_consumer(shop: Shop, cache_url: str, tmp_path: Path) -> None:
    with client(shop, cache_url) as cache, Daemon(tmp_path, shop.url, [cache_url]) as daemon:
        with Verifying(daemon, "--for", "3s", **QUICK) as verifying:
            for turn in range(30):
                number = turn % 10
                shop.sql("update customers set tier = :tier where id = :id", tier=str(turn), id=number)
                until(lambda n=number, t=turn: tier(cache, n) == str(t))
            report = verifying.ended(0)
    assert report["verdict"] == "fine"
    assert report["alarms"] == 0
    assert report["chosen"] == 30
    assert [row["served"] > 0 for row in report["ages"][:3]] == [True] * 3
    assert {name for name in shop.consumers() if "verify" in name} == set()
