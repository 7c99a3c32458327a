"""`invalidator verify` as people run it: real servers, a daemon beside it, and what it must tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from cachelib import Cache
from cachelib.envelope import decode, encode
from cachelib.model import value_of
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, cached, client, tier, until
from tests.integration.verifying import Verifying, plant


@pytest.fixture(params=["redis", "memcached"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def shop(sqlite_url: str) -> Iterator[Shop]:
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


def change(shop: Shop, value: str, number: int = 7) -> None:
    shop.sql("update customers set tier = :tier where id = :id", tier=value, id=number)


def item_of(cache: Cache, number: int = 7) -> tuple[bytes, bytes]:
    """Its name and bytes."""
    name = cache.explain(CUSTOMERS, number).name
    raw = cache.backend.get(name)
    assert raw is not None
    return name, raw


def consumers(shop: Shop) -> set[str]:
    with shop.engine.connect() as conn:
        return set(conn.execute(text("select name from leasecache_consumers")).scalars())


def test_a_correct_system_is_fine_and_nothing_waits_for_the_verifier(
    shop: Shop, cache_url: str, tmp_path: Path
) -> None:
    with client(shop, cache_url) as cache, Daemon(tmp_path, shop.url, [cache_url]) as daemon:
        with Verifying(daemon, tolerate="30s") as verifying:
            for turn in range(20):
                change(shop, str(turn), turn % 10)
                until(lambda t=turn: tier(cache, t % 10) == str(t))
            assert verifying.status()["what"] == "verifier"
            assert "invalidator_verify_checks_total{" in verifying.get("/metrics")
            report = verifying.stopped(0, lambda it: it["chosen"] == 20 and all(row["served"] for row in it["ages"]))
        assert {name.partition("@")[0] for name in consumers(shop)} <= {"invalidator"}
    assert report["verdict"] == "fine"
    assert verifying.said[-1].startswith("verdict: fine")


def test_an_item_that_lost_an_invalidation_is_found_with_all_its_fields(
    shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    with client(shop, redis_url) as cache, Daemon(tmp_path, shop.url, [redis_url]) as daemon:
        cached(cache)
        name, old = item_of(cache)
        with Verifying(daemon, tolerate="30s") as verifying:
            change(shop, "gold")
            until(lambda: tier(cache) == "gold")
            plant(redis_url, name, old)
            report = verifying.stopped(3, lambda it: it["alarms"])
    found = report["last"]
    # It was seen newer before, where an age came between the change and what was planted.
    assert found["why"] in ("drop", "race")
    assert found["difference"] == "older"
    assert found["key"] == "customers:7"
    assert found["change"]["told"]
    assert found["item"]["version"] == decode(old).version < found["store"]["version"]
    assert report["first"]["item"].keys() == found["item"].keys()
    assert "a cache serves what the store no longer has" in {line["event"] for line in verifying.log()}


def test_a_node_that_nobody_tells_lags_and_is_no_alarm_before_it_is_tolerated_no_longer(
    shop: Shop, memcached_url: str, tmp_path: Path
) -> None:
    with client(shop, memcached_url) as cache, Daemon(tmp_path, shop.url, [memcached_url]) as daemon:
        cached(cache)
        daemon.kill()
        with Verifying(daemon, tolerate="1s") as verifying:
            change(shop, "gold")
            until(lambda: verifying.status()["stale"])
            early = verifying.status()
            report = verifying.stopped(3, lambda it: it["alarms"])
    assert early["alarms"] == 0
    assert report["last"]["why"] == "lag"
    assert report["last"]["stale_for_s"] >= 1
    assert report["alarms"] >= 1
    assert report["stale_keys"] == 1


def test_a_bounded_run_ends_by_itself_and_with_its_verdict(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache, Daemon(tmp_path, shop.url, [redis_url]) as daemon:
        cached(cache)
        with Verifying(daemon, "--for", "300ms") as verifying:
            report = verifying.ended(0)
    assert report["seconds"] < 60
    assert verifying.said[-1] == "verdict: fine, 0 stale answers of 0 keys, 0 of them alarms"


def test_the_right_version_with_another_content_is_found(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with (
        client(shop, redis_url) as cache,
        Daemon(tmp_path, shop.url, [redis_url]) as daemon,
        Verifying(daemon, tolerate="30s") as verifying,
    ):
        change(shop, "gold")
        until(lambda: tier(cache) == "gold")
        name, raw = item_of(cache)
        item = decode(raw)
        plant(redis_url, name, encode(item.but(content=value_of(item.content.payload.replace(b"gold", b"lead")))))
        report = verifying.stopped(3, lambda it: it["alarms"])
    assert report["last"]["difference"] == "differs"
    assert report["last"]["why"] == "race"
    assert report["last"]["after"] == "hot"


def test_lists_are_compared_by_their_content(shop: Shop, memcached_url: str, tmp_path: Path) -> None:
    """A key of many rows has no version: what it holds is from before the change, and differs, twice."""
    entities = tmp_path / "shop_lists.py"
    entities.write_text(LISTS)
    with Daemon(tmp_path, shop.url, [memcached_url]) as daemon:
        daemon.kill()
        daemon.settings["entities"] = ["shop_lists:entities"]
        scope: dict[str, object] = {}
        exec(compile(LISTS, str(entities), "exec"), scope)
        orders_of = scope["orders_of"]
        with Cache(memcached_url, store=shop.store) as cache:
            until(lambda: cache.read(orders_of, 7).source == "hit")  # type: ignore[arg-type]
            with Verifying(daemon, tolerate="1s") as verifying:
                shop.sql("insert into orders (id, customer_id) values (1, 7)")
                report = verifying.stopped(3, lambda it: it["alarms"])
    assert report["last"]["key"] == "orders-of:7"
    assert report["last"]["difference"] == "differs"
    assert report["last"]["why"] == "lag"


LISTS = """
from cachelib import Entity

def load(tx, keys):
    return {key: [row[0] for row in tx.execute("select id from orders where customer_id = :id", {"id": key})]
            for key in keys}

orders_of = Entity("orders-of:{customer_id}", load=load, depends_on={"orders": "customer_id"})
entities = [orders_of]
"""
