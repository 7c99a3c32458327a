"""The README's code runs as it is written, and the README says what a newcomer needs."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache
from cachelib.errors import CacheError
from cachelib.stores import SqlStore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
CACHE_URL, STORE_URL = "redis://localhost:6379/0", "sqlite:///shop.db"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop's database, in the current folder."""
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("shop.db") as db:
        db.execute("create table customers (id integer primary key, name text, tier text, spent integer)")
        db.execute("create table orders (id integer primary key, customer_id integer, total integer)")
        db.executemany("insert into customers values (?, ?, 'iron', ?)", [(i, f"c{i}", 300 * i) for i in range(1, 9)])
        db.executemany("insert into orders values (?, ?, 5)", [(i, 1 + i % 3) for i in range(1, 9)])
    db.close()
    return tmp_path


def test_first_useful_code_stands_within_35_lines() -> None:
    lines = README.splitlines()
    assert lines.index("```", lines.index("```python") + 1) < 35


def test_first_example_runs_as_written(shop: Path, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert CACHE_URL in BLOCKS[0]
    assert STORE_URL in BLOCKS[0]
    scope: dict[str, Any] = {}
    exec(BLOCKS[0].replace(CACHE_URL, redis_url), scope)
    scope["store"].close()
    before, many, after = capsys.readouterr().out.splitlines()
    assert eval(before) == {"id": 7, "name": "c7", "tier": "iron", "spent": 2100}
    assert list(eval(many)) == [7, 8]
    assert eval(after)["tier"] == "gold"


def test_declarations_run_as_written(shop: Path, redis_url: str) -> None:
    scope: dict[str, Any] = {}
    exec(BLOCKS[1], scope)
    with SqlStore(STORE_URL) as store:
        store.install("orders", key="id", watch=["customer_id"])
        orders, orders_of = scope["orders"], scope["orders_of"]
        with Cache(redis_url, store=store, entities=[orders, orders_of]) as cache:
            assert cache.get(orders, 3) == {"customer": 1, "total": 5}
            assert cache.get(orders_of, 1) == [3, 6]
            with cache.transaction() as tx:
                tx.execute("update orders set customer_id = 1 where id = 4")
            assert cache.get(orders_of, 1) == [3, 4, 6]


@pytest.mark.parametrize(
    "error", sorted(set(re.findall(r"`(\w+(?:Exceeded|Unavailable|Failed|Unknown|Key))`", README)))
)
def test_every_error_that_is_named_exists(error: str) -> None:
    import cachelib

    assert issubclass(getattr(cachelib, error), CacheError)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize(
    "promise", ["make demo", "make test", "import name", "does not promise", "Which level?", "When something fails"]
)
def test_it_says(promise: str) -> None:
    assert promise in README
