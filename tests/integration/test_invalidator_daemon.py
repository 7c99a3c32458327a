"""The invalidator as a process, over real stores and real nodes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from cachelib.stores import SqlStore
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, cached, client, tier, until
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

PROVEN_S = 15


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    shop = Shop(request.getfixturevalue(f"{request.param}_url"))
    yield shop
    shop.close()


@pytest.fixture
def small_shop(sqlite_url: str) -> Iterator[Shop]:
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


@pytest.fixture(params=["redis", "memcached"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_plain_sql_behind_the_librarys_back_voids_the_item(shop: Shop, cache_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, shop.url, [cache_url]), client(shop, cache_url) as cache:
        assert cached(cache) == "plain"
        shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: tier(cache) == "gold")


def test_insert_and_delete_reach_cached_absence_and_content(shop: Shop, cache_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, shop.url, [cache_url]), client(shop, cache_url) as cache:
        assert cache.get(CUSTOMERS, 500) is None
        shop.sql("insert into customers (id, tier) values (500, 'new')")
        until(lambda: cache.get(CUSTOMERS, 500) is not None)
        shop.sql("delete from customers where id = 500")
        until(lambda: cache.get(CUSTOMERS, 500) is None)


def test_kill_between_batch_and_commit_loses_nothing(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        with Daemon(tmp_path, shop.url, [redis_url]) as daemon:
            shop.sql("update customers set tier = 'silver' where id = 3")
            until(lambda: (shop.committed() or "") != "")
            assert daemon.stop() == 0
        committed = shop.committed()
        cached(cache)
        with Daemon(tmp_path, shop.url, [redis_url], apply={"commit": "60s"}) as daemon:
            shop.sql("update customers set tier = 'gold' where id = 7")
            until(lambda: tier(cache) == "gold")
            daemon.kill()
        assert shop.committed() == committed
        shop.sql("update customers set tier = 'lost' where id = 7")
        assert cached(cache) == "gold"
        with Daemon(tmp_path, shop.url, [redis_url]):
            until(lambda: tier(cache) == "lost")


def test_node_restarted_empty_goes_on_without_new_epochs(small_shop: Shop, tmp_path: Path) -> None:
    with RedisServer() as server, Daemon(tmp_path, small_shop.url, [server.url]) as daemon:
        small_shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: (small_shop.committed() or "") != "")
        server.kill()
        server.start()
        with client(small_shop, server.url) as cache:
            until(lambda: daemon.status()["nodes"][server.url]["caught_up"])
            cached(cache)
            small_shop.sql("update customers set tier = 'iron' where id = 7")
            until(lambda: tier(cache) == "iron")
        assert daemon.metric("epochs_total") == 0


def test_node_that_returns_with_old_data_is_replayed(small_shop: Shop, tmp_path: Path) -> None:
    with RedisServer() as server, Daemon(tmp_path, small_shop.url, [server.url]) as daemon:
        with client(small_shop, server.url) as cache:
            cached(cache)
            time.sleep(0.3)  # its position is on the node
            ask(server, b"SAVE\r\n")
            small_shop.sql("update customers set tier = 'gold' where id = 7")
            until(lambda: tier(cache) == "gold")
            until(lambda: small_shop.committed() == small_shop.store.log_end())
        server.kill()
        server.start()  # from the file: the item of before the change, and the position that belongs to it
        with client(small_shop, server.url) as cache:
            until(lambda: tier(cache) == "gold")
        assert daemon.metric("epochs_total") == 0


def test_unknown_node_makes_everything_void(small_shop: Shop, tmp_path: Path) -> None:
    with RedisServer() as old, RedisServer() as new:
        with Daemon(tmp_path, small_shop.url, [old.url]) as daemon:
            small_shop.sql("update customers set tier = 'silver' where id = 3")
            until(lambda: small_shop.committed() == small_shop.store.log_end())
            assert daemon.stop() == 0
        with client(small_shop, new.url) as cache:
            assert cached(cache) == "plain"  # clients use it, and the daemon does not know
        small_shop.sql("update customers set tier = 'gold' where id = 7")
        with Daemon(tmp_path, small_shop.url, [old.url, new.url]) as daemon:
            with client(small_shop, new.url) as cache:
                until(lambda: tier(cache) == "gold")
            assert daemon.metric("epochs_total", reason="unknown_node") == 1
            until(lambda: daemon.status()["nodes"][new.url]["counts"])


def test_paused_node_does_not_stop_the_others_and_catches_up(small_shop: Shop, tmp_path: Path) -> None:
    with (
        RedisServer() as one,
        RedisServer() as other,
        Daemon(tmp_path, small_shop.url, [one.url, other.url]) as daemon,
        client(small_shop, one.url) as first,
        client(small_shop, other.url) as second,
    ):
        cached(first), cached(second)
        other.pause()
        small_shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: tier(first) == "gold")
        until(lambda: not daemon.status()["nodes"][other.url]["answers"])
        assert small_shop.committed() != small_shop.store.log_end()
        other.resume()
        until(lambda: tier(second) == "gold")
        until(lambda: small_shop.committed() == small_shop.store.log_end())


def test_dead_node_no_longer_holds_up_the_committed_offset(small_shop: Shop, tmp_path: Path) -> None:
    short = {"node_dead_after": "1s"}
    with (
        RedisServer() as one,
        RedisServer() as other,
        Daemon(tmp_path, small_shop.url, [one.url, other.url], apply=short) as daemon,
    ):
        small_shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: small_shop.committed() == small_shop.store.log_end())
        other.kill()
        small_shop.sql("update customers set tier = 'iron' where id = 7")
        until(lambda: small_shop.committed() == small_shop.store.log_end())
        assert daemon.metric("epochs_total", reason="node_dead") == 1
        until(lambda: daemon.metric("node_counts", node=other.url) == 0)


def test_store_that_restarts_is_waited_for(redis_url: str, tmp_path: Path) -> None:
    with PostgresServer() as server:
        shop = Shop(server.url)
        with Daemon(tmp_path, shop.url, [redis_url]) as daemon, client(shop, redis_url) as cache:
            cached(cache)
            server.stop()
            until(lambda: daemon.status()["store_error"])
            assert daemon.get("/healthz")[0] == 200
            server.start()
            until(lambda: not daemon.status()["store_error"])
            until(lambda: _sql(shop, "update customers set tier = 'gold' where id = 7"))
            until(lambda: tier(cache) == "gold")
            assert daemon.metric("epochs_total") == 0
        shop.close()


def test_full_node_that_evicts_nothing_is_told_all_the_same(small_shop: Shop, tmp_path: Path) -> None:
    with (
        RedisServer(maxmemory="3mb", maxmemory_policy="noeviction") as server,
        Daemon(tmp_path, small_shop.url, [server.url]) as daemon,
        client(small_shop, server.url) as cache,
    ):
        cached(cache)
        ask(server, b"CONFIG SET maxmemory 1\r\n")
        for value in ("gold", "iron"):
            small_shop.sql(f"update customers set tier = '{value}' where id = 7")
            until(lambda value=value: tier(cache) == value)  # type: ignore[misc]
        assert daemon.metric("refused_notes_total", node=server.url) > 0
        ask(server, b"CONFIG SET maxmemory 0\r\n")
        until(lambda: small_shop.committed() == small_shop.store.log_end())


def test_gap_makes_everything_void(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        with Daemon(tmp_path, shop.url, [redis_url]) as daemon:
            shop.sql("update customers set tier = 'silver' where id = 3")
            until(lambda: (shop.committed() or "") != "")
            assert daemon.stop() == 0
        cached(cache)
        shop.sql("update customers set tier = 'gold' where id = 7")
        time.sleep(0.01)
        purger = SqlStore(shop.url, retention="1ms", retention_max="1ms")
        assert purger.purge() > 0
        purger.close()
        with Daemon(tmp_path, shop.url, [redis_url]) as daemon:
            until(lambda: tier(cache) == "gold")
            assert daemon.metric("gaps_total") == 1
            assert [line for line in daemon.log() if line["level"] == "error"]


def test_truncate_voids_the_tables_entities(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    shop = Shop(postgres_url)
    with Daemon(tmp_path, shop.url, [redis_url]) as daemon, client(shop, redis_url) as cache:
        cached(cache)
        shop.sql("truncate customers")
        until(lambda: cache.get(CUSTOMERS, 7) is None)
        assert daemon.metric("epochs_total", reason="truncate") == 1
    shop.close()


@pytest.mark.slow
def test_ten_thousand_rows_in_one_transaction(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> None:
    shop = Shop(request.getfixturevalue("postgres_url"), customers=10_000)
    with Daemon(tmp_path, shop.url, [redis_url]) as daemon, client(shop, redis_url) as cache:
        keys = [0, 1, 4_999, 5_000, 9_998, 9_999]
        cache.get_many(CUSTOMERS, range(10_000))
        before = daemon.metric("changes_total", table="customers")
        shop.sql("update customers set tier = 'gold'")
        until(lambda: all(tier(cache, key) == "gold" for key in keys))
        until(lambda: daemon.metric("changes_total", table="customers") - before == 10_000)
        assert daemon.metric("epochs_total") == 0
    shop.close()


def test_sigterm_finishes_commits_and_exits_with_0(small_shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, small_shop.url, [redis_url], apply={"commit": "60s"}) as daemon:
        small_shop.sql("update customers set tier = 'gold'")
        until(lambda: daemon.metric("changes_total") >= 20)
        assert daemon.stop() == 0
    assert small_shop.committed() == small_shop.store.log_end()


def test_sighup_with_broken_rules_keeps_the_old(small_shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, small_shop.url, [redis_url]) as daemon, client(small_shop, redis_url) as cache:
        (tmp_path / "shop_entities.py").write_text("this is no python")
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.metric("reloads_total", outcome="refused") == 1)
        cached(cache)
        small_shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: tier(cache) == "gold")


def test_sighup_takes_new_rules(small_shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, small_shop.url, [redis_url]) as daemon:
        module = tmp_path / "shop_entities.py"
        module.write_text(module.read_text() + '\nentities.append(Entity("boats:{id}", table="boats"))\n')
        daemon.signal(signal.SIGHUP)
        until(lambda: "boats" in daemon.status()["entities"])


def test_probes_and_metrics(small_shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, small_shop.url, [redis_url]) as daemon:
        assert daemon.get("/healthz")[0] == 200
        assert daemon.get("/readyz")[0] == 200
        assert daemon.get("/nothing")[0] == 404
        small_shop.sql("update customers set tier = 'gold'")
        until(lambda: daemon.metric("operations_total", node=redis_url) >= 20)
        assert daemon.metric("node_up", node=redis_url) == 1
        assert daemon.metric("lag_seconds", node=redis_url) < PROVEN_S
        until(lambda: daemon.metric("position", node=redis_url, partition="log") >= 20)


def test_not_ready_while_a_node_was_never_reached(small_shop: Shop, tmp_path: Path) -> None:
    with RedisServer() as server:
        server.stop()
        daemon = Daemon(tmp_path, small_shop.url, [server.url]).start()
        try:
            assert daemon.get("/readyz")[0] == 503
            assert daemon.get("/healthz")[0] == 200
            server.start()
            daemon.ready()
        finally:
            daemon.kill()


def _sql(shop: Shop, statement: str) -> bool:
    try:
        shop.sql(statement)
    except OperationalError:  # a pooled connection of before the restart
        return False
    return True


def ask(server: RedisServer, line: bytes) -> None:
    from tests.servers.process import ask as ask_port

    assert ask_port(server.port, line, timeout_s=10).startswith(b"+OK")
