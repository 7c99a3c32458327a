"""A pool: a name alone says which node it belongs to, also one of a layout that is over."""

from __future__ import annotations

import pytest

from cachelib.backends.memory import Memory
from cachelib.drivers import run_now
from cachelib.errors import CacheUnavailable
from cachelib.layout import Layout, completed, first_layout, with_mode, with_node_renewed, with_nodes
from cachelib.model import Get, Leased, Revoke
from cachelib.places import Places
from cachelib.policy import Mode
from cachelib.pool import LAYOUTS_KEPT, Pool
from cachelib.slots import ranked, slot_of
from cachelib.threads import DirectBackend, ThreadWorld

NODES = {name: Memory() for name in ("a", "b", "c")}
TEXTS = [b"order:%d" % number for number in range(40)]


@pytest.fixture
def pool() -> Pool:
    return Pool(Places(NODES, lambda url: Memory()), DirectBackend, None, ThreadWorld())


def names(layout: Layout) -> dict[bytes, bytes]:
    return {text: layout.names("lc", "order", text)[0] for text in TEXTS}


def test_a_name_belongs_to_the_owner_of_its_slot(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    pool.learn(layout)
    for text, name in names(layout).items():
        assert pool.of(name).name == layout.now.owner(slot_of(text))


def test_a_name_of_a_layout_that_is_over_still_leads_to_its_node(pool: Pool) -> None:
    """A call that began under it ends where it began."""
    before = first_layout(["a", "b", "c"])
    after = completed(with_nodes(before, ["a", "b"]))
    pool.learn(before)
    pool.learn(after)
    for text, name in names(before).items():
        assert pool.of(name).name == before.now.owner(slot_of(text))


def test_two_threads_by_two_layouts_do_not_push_each_other_out(pool: Pool) -> None:
    before = first_layout(["a", "b", "c"])
    after = completed(with_nodes(before, ["a", "b"]))
    for _ in range(2 * LAYOUTS_KEPT):
        pool.learn(before)
        pool.learn(after)
    assert len(pool._layouts) == 2


def test_after_too_many_changes_a_name_is_told_to_be_lost(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    old = names(layout)[TEXTS[0]]
    pool.learn(layout)
    for _ in range(LAYOUTS_KEPT):
        for node in ("a", "b", "c"):
            layout = completed(with_node_renewed(layout, node))
        pool.learn(layout)
    with pytest.raises(CacheUnavailable, match="changed too often"):
        pool.of(old)


def test_what_a_mode_changes_costs_no_name(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    pool.learn(with_mode(layout, "order", Mode.BYPASS))
    assert all(pool.of(name) for name in names(layout).values())


def test_a_batch_is_answered_in_its_order_whatever_the_nodes(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    pool.learn(layout)
    batch = [(name, Get(7 + at, 1000)) for at, name in enumerate(names(layout).values())]
    answers = run_now(pool.execute_many(batch))
    assert [answer.token for answer in answers if isinstance(answer, Leased)] == [7 + at for at in range(len(TEXTS))]


def test_a_name_that_no_node_has_costs_the_batch_nothing_else(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    pool.learn(layout)
    good = names(layout)[TEXTS[0]]
    results = run_now(pool.execute_many([(b"lc/e.unknown/x", Revoke(1)), (good, Get(9, 1000))]))
    assert isinstance(results[0], CacheUnavailable)
    assert isinstance(results[1], Leased)


def test_the_gutter_is_the_next_node_in_rank(pool: Pool) -> None:
    layout = first_layout(["a", "b", "c"])
    pool.learn(layout)
    for text in TEXTS:
        beside = layout.gutter("lc", "order", text)
        assert beside is not None
        assert pool.of(beside).name == ranked(["a", "b", "c"], slot_of(text))[1]


def test_a_pool_of_one_has_no_gutter() -> None:
    assert first_layout(["a"]).gutter("lc", "order", TEXTS[0]) is None
    assert first_layout().gutter("lc", "order", TEXTS[0]) is None
