"""The races of PROTOCOL.md that one key can show, each as its order of events.

Every scenario runs twice: on ours the last read must see the store's row, and on a naive cache it must
not, or the scenario shows nothing. The table in README.md names them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from cachelib.errors import LaterCodec, LoadFailed
from cachelib.item import LEASE_MS_MAX
from tests.races.naive import Naive
from tests.races.world import HOLD_MS, HOUR_MS, Ours

World = Any
"""`Ours` or `Naive`: the same surface."""


def race(**options: Any) -> Callable[[Callable[[World], None]], Callable[..., None]]:
    """A scenario, run on both; afterwards a read must be fresh on ours and stale on the naive cache."""

    def decorate(scenario: Callable[[World], None]) -> Callable[..., None]:
        @pytest.mark.parametrize("system", [Ours, Naive], ids=["ours_is_fresh", "naive_is_stale"])
        def test(system: Callable[..., World]) -> None:
            world = system(**options)
            scenario(world)
            seen = world.read()
            if world.naive:
                assert seen != world.store.truth, "the naive cache survives this: the scenario shows nothing"
            else:
                assert seen == world.store.truth

        functools.update_wrapper(test, scenario, assigned=("__name__", "__doc__", "__module__", "__qualname__"))
        del test.__wrapped__  # pytest would ask the scenario for its arguments
        test.race = scenario, options  # type: ignore[attr-defined]  # for `rates.py`
        return test

    return decorate


@race(writer="invalidate")
def test_stale_fill(world: World) -> None:
    slow = world.reader().load()
    world.write("second")
    slow.fill()


@race(writer="invalidate")
def test_fill_after_eviction(world: World) -> None:
    slow = world.reader().load()
    world.write("second")
    world.evict()  # and with the item, all memory of the write
    slow.fill()


@race()
def test_put_after_newer_put(world: World) -> None:
    world.read()
    older, newer = world.store.commit("second"), world.store.commit("third")
    world.tell(newer)
    world.tell(older)


@race()
def test_late_put_into_evicted_slot(world: World) -> None:
    older = world.store.commit("second")
    world.write("third")
    world.evict()
    world.tell(older)


@race()
def test_writer_dies_between_commit_and_put(world: World) -> None:
    slow = world.reader().load()
    commit = world.store.commit("second")  # and its writer is gone; the log has it
    world.apply_log(commit)
    slow.fill()


@race(lock="for ever")
def test_lease_holder_dies(world: World) -> None:
    world.reader().load().die()
    world.let_the_lease_end()


@race(lock="until its end", writer="invalidate")
def test_lease_expires_under_a_slow_load(world: World) -> None:
    slow = world.reader().load()
    world.let_the_lease_end()
    world.write("second")
    world.reader().fill()
    world.evict()
    slow.fill()


@race(lock="until its end", writer="invalidate")
def test_two_lease_holders(world: World) -> None:
    first = world.reader().load()
    world.let_the_lease_end()
    second = world.reader().ask()
    world.write("second")
    second.fill()
    first.fill()


@race(writer="invalidate")
def test_invalidation_before_visibility_then_eviction(world: World) -> None:
    commit = world.store.commit("second", visible=False)
    world.read()
    world.apply_log(commit)  # the first look
    world.evict()
    world.read()  # loads the old row: the commit is not visible yet
    world.store.show()
    if not world.naive:
        assert world.read() == "first"
        world.apply_log(commit)  # the second look: the commit is surely visible now


@race(writer="invalidate")
def test_restart_between_the_two_looks(world: World) -> None:
    world.read()
    commit = world.store.commit("second", visible=False)
    world.apply_log(commit)
    world.restart()
    slow = world.reader().load()
    world.store.show()
    if world.naive:
        slow.fill()
        return
    world.apply_log(commit)
    slow.fill()


@race(writer="invalidate", tombstones=True)
def test_lagging_replica(world: World) -> None:
    commit = world.store.commit("second")
    world.apply_log(commit)
    world.reader(strong=False).load(behind=1).fill()


@race(writer="invalidate")
def test_insert_behind_cached_absence(world: World) -> None:
    world.write(None)
    slow = world.reader().load()  # no row
    commit = world.store.commit("again")
    world.apply_log(commit)
    slow.fill()


@race(writer="invalidate")
def test_insert_that_drew_its_version_before_a_delete(world: World) -> None:
    world.read()
    world.write(None, version=40)
    slow = world.reader().load()  # no row
    again = world.store.commit("again", version=30)
    world.apply_log(again)  # below the floor, but it is a create
    slow.fill()


@race()
def test_delete_then_reinsert(world: World) -> None:
    world.read()
    gone = world.store.commit(None)
    again = world.store.commit("again")
    world.tell(again)
    world.tell(gone)  # late


@race(writer="invalidate")
def test_delete_then_reinsert_with_a_counter_that_restarts(world: World) -> None:
    world.read()
    world.write(None)
    slow = world.reader().load()  # no row
    again = world.store.commit("again", version=1)
    world.apply_log(again)
    slow.fill()


@race(writer="refresh")
def test_duplicate_reordered_and_rewound_log(world: World) -> None:
    world.read()
    second, third = world.store.commit("second"), world.store.commit("third")
    for commit in (third, second, third, third, second):
        world.apply_log(commit)
    world.read()
    world.apply_log(second)  # rewound, and stopped there


@race(writer="invalidate")
def test_cache_restart_forgets_the_lease(world: World) -> None:
    slow = world.reader().load()
    world.restart()
    world.write("second")
    world.reader().fill()
    world.evict()
    world.reader().ask()  # the slot has a lease again, another one
    slow.fill()
    if not world.naive:
        world.let_the_lease_end()


@race(many_rows=True, writer="invalidate")
def test_two_rows_behind_one_key(world: World) -> None:
    world.read()
    drew_first = world.store.commit("row 1 changed", version=20)
    drew_second = world.store.commit("row 2 changed", version=30)
    world.tell(drew_second)
    slow = world.reader().load()
    world.store.commit("row 1 changed last", version=25)
    world.tell(drew_first)  # 20 is older than 30, and yet it has to void
    slow.fill()


@race(lock="until its end")
def test_clock_skew_of_a_client_far_ahead(world: World) -> None:
    """It takes the lease as of tomorrow, and dies: nobody waits until tomorrow."""
    world.reader(skew_ms=24 * HOUR_MS).load().die()


@race(lock="until its end", writer="invalidate")
def test_clock_skew_of_a_client_far_behind(world: World) -> None:
    """Its leases seem to be over at once: two load, and the older load changes nothing."""
    behind = world.reader(skew_ms=-24 * HOUR_MS).load()
    world.write("second")
    world.reader().fill()
    behind.fill()


@race(writer="invalidate")
def test_error_path_that_keeps_the_old_value(world: World) -> None:
    world.read()
    commit = world.store.commit("second")
    world.full = world.naive  # the naive cache step fails, is logged, and that was that
    world.tell(commit)
    world.full = False
    failing = world.reader().ask()
    failing.fail(LoadFailed("the store failed"))


@race()
def test_refused_writes_when_the_cache_is_full(world: World) -> None:
    world.read()
    commit = world.store.commit("second")
    world.full = True
    world.tell(commit)
    world.full = False


@race()
def test_unknown_commit_outcome(world: World) -> None:
    world.read()
    world.store.commit("second")  # it happened, but the answer was lost
    world.unknown_commit()


# --- what the naive cache has no word for ------------------------------------------------------


def test_value_and_version_loaded_apart() -> None:
    """Loaded apart, an old value gets the new version, and no floor can tell. In one statement it is refused."""
    for apart in (False, True):
        world = Ours(writer="invalidate")
        slow = world.reader().ask()
        value = world.store.load()
        commit = world.store.commit("second")
        world.tell(commit)
        loaded = world.loaded(value)
        if apart:
            loaded = type(loaded)(loaded.content, loaded.value, True, commit.version, 0)
        slow._reply(loaded)
        slow.fill()
        assert (world.read() == world.store.truth) is not apart


def test_no_lease_is_held_for_ever_by_a_clock_that_is_ahead() -> None:
    world = Ours()
    world.reader(skew_ms=24 * HOUR_MS).ask().die()
    before = world.clock.now_ms
    assert world.read() == "first"
    assert world.clock.now_ms - before <= LEASE_MS_MAX


def test_an_unknown_commit_that_did_not_happen_keeps_nothing_out() -> None:
    """A floor from a commit that never was would refuse the row for good; a revoke does not."""
    world = Ours()
    world.read()
    world.unknown_commit()
    world.read()
    assert world.item is not None
    assert world.item.fresh


def test_codec_change_in_a_rolling_deploy() -> None:
    """The older program returns its own load and leaves the newer program's item alone: no endless refill."""
    world = Ours()
    world.read()
    item = world.item

    def older(payload: bytes) -> str:
        raise LaterCodec("written by a later program")

    world.decode = older
    assert world.read() == "first"
    assert world.item == item
    assert world.store.loads == 2


@pytest.mark.parametrize("strong", [True, False])
def test_a_refused_fill_lets_the_next_reader_load_at_once(strong: bool) -> None:
    world = Ours(writer="invalidate")
    slow = world.reader(strong=strong).load()
    world.write("second")
    slow.fill()
    before = world.clock.now_ms
    assert world.read() == "second"
    assert world.clock.now_ms - before < HOLD_MS


def test_refreshes_that_fail_do_not_lengthen_the_life_of_what_is_fresh() -> None:
    world = Ours()
    world.read()
    assert world.item is not None
    end = world.item.expires_ms
    world.item = world.item.but(soft_expire_ms=world.clock.now_ms)
    world.clock.now_ms = end - 1
    world.reader().ask().fail(LoadFailed("the store failed"))
    assert world.item.expires_ms == end
