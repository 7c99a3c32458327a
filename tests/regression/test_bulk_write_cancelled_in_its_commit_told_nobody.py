"""A transaction of more keys than can be named was cancelled in the middle of its commit: nobody knew how it had ended,
and nothing was told, while for fewer keys their items are revoked. Without an invalidator the old values stayed.

`test_an_unknown_bulk_commit_costs_a_new_epoch` should have had the cancellation beside it.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachelib import StoreError
from cachelib.layout import decode_layout
from tests.unit.test_commit import Shop, order


def commit_that(raised: BaseException) -> Shop:
    shop = Shop(order())

    def fail() -> None:
        raise raised

    shop.store.fail_commit = fail
    with pytest.raises(type(raised)):
        write(shop)
    return shop


def write(shop: Shop) -> None:
    with shop.cache.transaction() as tx:
        inner: Any = tx._tx
        inner.bulk = True


def test_new_epochs_are_published_and_left_to_others() -> None:
    shop = commit_that(KeyboardInterrupt())
    layout = decode_layout(shop.store.document)
    assert layout.next is not None
    assert layout.next.epochs.keys() == {order().name}


def test_refused_one_publishes_nothing() -> None:
    shop = commit_that(StoreError("refused"))
    assert decode_layout(shop.store.document).next is None
