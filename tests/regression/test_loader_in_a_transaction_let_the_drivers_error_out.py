"""At its end a transaction loads the rows that it puts. Where the store died in that load, the driver's own error came
out of `cache.transaction()`, which promises `StoreError`: only the store's own loads were translated.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cachelib import StoreError
from cachelib.stores import SqlStore


def test_loader_in_a_transaction_raises_store_error(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with store.transaction() as tx:
            tx.execute("create table boats (id integer primary key, name text)")
        load = store.table_loader("boats", "id", None)
        with store.transaction() as tx:
            assert load(tx, [1]) == {}
            tx.execute("drop table boats")
            with pytest.raises(StoreError, match="loading rows of boats: no such table"):
                load(tx, [1])
