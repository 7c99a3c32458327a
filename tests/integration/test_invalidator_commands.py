"""The invalidator's command line: what it says, and with which exit code."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cachelib.layout import decode_layout
from tests.integration.invalidator_daemon import ENTITIES, Shop, cached, client, invalidator, until
from tests.servers.ports import free_port


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "shop_entities.py").write_text(ENTITIES)
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


def flags(shop: Shop, cache_url: str) -> list[str]:
    return ["--store", shop.url, "--cache", cache_url, "--entities", "shop_entities:entities"]


STORE = ["--store", "sqlite:///shop.db"]
CACHE = ["--cache", "memory://"]
NAMED = ["--entities", "shop_entities:entities"]
CLOSED = f"postgresql+psycopg://shop:secret@127.0.0.1:{free_port()}/shop"
WRONG = [
    ([*CACHE, *NAMED], 2, "no store is given"),
    ([*STORE, *NAMED], 2, "no cache is given"),
    ([*STORE, *CACHE], 2, "nothing is cached"),
    ([*STORE, *NAMED, "--cache", "redsi://h"], 2, "redsi"),
    ([*CACHE, *NAMED, "--store", "shop.db"], 2, "store URL"),
    ([*STORE, *CACHE, "--entities", "no_such_module:entities"], 2, "no_such_module"),
    ([*STORE, *CACHE, "--entities", "shop_entities:nothing"], 2, "has no 'nothing'"),
    ([*STORE, *CACHE, *NAMED, "--config", "missing.toml"], 2, "missing.toml"),
    ([*STORE, *CACHE, *NAMED, "--log-format", "jsn"], 2, "did you mean 'json'"),
    ([*CACHE, *NAMED, "--store", CLOSED], 1, "store"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG, ids=[says for _, _, says in WRONG])
def test_what_is_wrong_at_the_start_is_one_sentence(
    arguments: list[str], code: int, says: str, shop: Shop, tmp_path: Path
) -> None:
    ended = invalidator(tmp_path, "run", *arguments, "--http-port", "0", "--log-level", "error")
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if line.startswith("invalidator: ")]) == 1


def test_wrong_toml_names_the_nearest_setting(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[apply]\nbacth = 5\n")
    ended = invalidator(tmp_path, "run", "--config", "bad.toml")
    assert ended.returncode == 2
    assert "did you mean 'batch'?" in ended.stderr


def test_port_in_use_is_one_sentence(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = invalidator(tmp_path, "run", *flags(shop, redis_url), "--http-port", port)
    assert ended.returncode == 2
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_debug_shows_the_traceback(shop: Shop, tmp_path: Path) -> None:
    ended = invalidator(tmp_path, "run", *STORE, "--debug")
    assert "Traceback" in ended.stderr


def test_help_lists_every_setting_with_its_default(tmp_path: Path) -> None:
    said = " ".join(invalidator(tmp_path, "run", "--help").stdout.split())
    for setting in ("store.url", "apply.node_dead_after", "http.port", "source.poll"):
        assert setting in said
    assert "[500ms]" in said


def test_check_says_what_it_would_do(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    ended = invalidator(tmp_path, "check", *flags(shop, redis_url))
    assert ended.returncode == 0, ended.stderr
    assert "would go on from the log's start" in ended.stdout
    assert shop.committed() is None


def test_check_finds_a_node_that_does_not_answer(shop: Shop, tmp_path: Path) -> None:
    ended = invalidator(tmp_path, "check", *flags(shop, f"redis://127.0.0.1:{free_port()}/0"))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


def test_check_finds_a_table_that_is_not_installed(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    shop.store.uninstall("orders")
    ended = invalidator(tmp_path, "check", *flags(shop, redis_url))
    assert ended.returncode == 1
    assert "table orders: it is not installed" in ended.stdout


def test_dry_run_prints_the_keys_of_what_waits_and_applies_nothing(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        shop.sql("update customers set tier = 'gold' where id = 7")
        shop.sql("insert into orders (id, customer_id) values (1, 7)")
        ended = invalidator(tmp_path, "check", "--dry-run", *flags(shop, redis_url))
        assert ended.returncode == 0, ended.stderr
        assert re.search(r"update customers .* -> customers:7: raise the floor to \d+", ended.stdout)
        assert re.search(r"create orders .* -> orders-of:7: revoke", ended.stdout)
        assert cached(cache) == "plain"


def test_replay_applies_the_log_again(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        layout = decode_layout(shop.store.read_layout() or b"")
        shop.sql("update customers set tier = 'gold' where id = 7")
        ended = invalidator(tmp_path, "replay", "--from", "START", *flags(shop, redis_url))
        assert ended.returncode == 0, ended.stderr
        assert "replayed" in ended.stdout
        until(lambda: cached(cache) == "gold")
        assert decode_layout(shop.store.read_layout() or b"") == layout


def test_replay_from_a_time_applies_what_was_changed_since(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        assert cached(cache, 7) == "plain"
        assert cached(cache, 8) == "plain"
        shop.sql("update customers set tier = 'gold' where id = 7")
        time.sleep(0.01)
        then = datetime.fromtimestamp(shop.store.now_us() / 1e6, UTC).isoformat()
        time.sleep(0.01)
        shop.sql("update customers set tier = 'gold' where id = 8")
        ended = invalidator(tmp_path, "replay", "--from", then, *flags(shop, redis_url))
        assert ended.returncode == 0, ended.stderr
        assert "replayed 1 changes" in ended.stdout
        assert cached(cache, 8) == "gold"
        assert cached(cache, 7) == "plain"
        ended = invalidator(tmp_path, "replay", "--from", "1h", *flags(shop, redis_url))
        assert "replayed 2 changes" in ended.stdout
        assert cached(cache, 7) == "gold"


def test_replay_gives_new_epochs_where_no_key_can_be_told(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        before = decode_layout(shop.store.read_layout() or b"")
        with shop.engine.begin() as conn:  # as a program without the column would have written it
            conn.exec_driver_sql(
                "insert into leasecache_changes (tbl, op, key, at_us) values ('customers', 'update', '{\"no\": 1}', 1)"
            )
        ended = invalidator(tmp_path, "replay", "--from", "START", *flags(shop, redis_url))
        assert ended.returncode == 0, ended.stderr
        assert "new epochs" in ended.stdout
        after = decode_layout(shop.store.read_layout() or b"")
        assert after.next is None
        assert after.now.prefix("lc", "customers") != before.now.prefix("lc", "customers")


def test_dry_run_shows_a_sample_from_where_it_is_told(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    shop.sql("update customers set tier = 'gold'")
    ended = invalidator(tmp_path, "check", "--dry-run", "--from", "START", "--sample", "3", *flags(shop, redis_url))
    assert ended.stdout.count("raise the floor") == 3
    assert "... and more; 3 are shown" in ended.stdout
    ended = invalidator(tmp_path, "check", "--dry-run", "--from", "yesterday", *flags(shop, redis_url))
    assert ended.returncode == 2


def test_settings_come_from_the_environment(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    ended = invalidator(
        tmp_path,
        "check",
        INVALIDATOR_STORE__URL=shop.url,
        INVALIDATOR_CACHES=redis_url,
        INVALIDATOR_ENTITIES="shop_entities",
    )
    assert ended.returncode == 0, ended.stderr
