"""Each branch of `steps.read`, driven by hand: a test gives the answers and looks at the questions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib import steps
from cachelib.drivers import AskingPort, Execute, Join, Load, Question, Wait
from cachelib.errors import (
    CacheError,
    CacheUnavailable,
    DeadlineExceeded,
    DecodeError,
    LaterCodec,
    LoadFailed,
    StoreBudgetExceeded,
)
from cachelib.model import (
    ABSENCE,
    BelowFloor,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Leased,
    LeaseLost,
    NoOp,
    Op,
    Raised,
    RaiseFloor,
    Release,
    Released,
    Requirement,
    Revoke,
    Revoked,
    Stored,
    value_of,
)
from cachelib.policy import Lives, Mode, Pace
from cachelib.port import Found, Landing, Loaded
from cachelib.readplan import ReadPlan

NOW_MS = 1_000_000
PLAN = ReadPlan(
    key="k",
    names=(b"k",),
    pace=Pace(hold_ms=5_000, wait_ms=50, wait_ms_max=100),
    lives=Lives(ttl_ms=60_000, negative_ttl_ms=5_000, stale_ttl_ms=10_000, jitter=0.0, early=0.0),
    decode=lambda payload: [payload.decode()],
    joins=False,
)
STRONG = replace(PLAN, strong=True, stale=False)
OLD = Item(value_of(b"old"), known=True, version=1, floor=1)
STALE = OLD.but(floor=2, stale_until_ms=NOW_MS + 1)
ROW = Loaded(value_of(b"new"), ["new"], True, 2, 77)
NO_ROW = Loaded(ABSENCE, None, False, 0, 77)
DOWN = CacheUnavailable("no answer")
FAILED = LoadFailed("the store failed")


class World:
    """The part of a port that asks nobody; it remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.abandoned: list[Op] = []
        self.landed: list[Landing] = []
        self._nonces = itertools.count(1)

    def now_ms(self) -> int:
        return NOW_MS

    def nonce(self) -> int:
        return next(self._nonces)

    def jitter(self) -> float:
        return 0.5

    def note(self, event: str) -> None:
        self.notes.append(event)

    def abandon(self, name: bytes, op: Op) -> None:
        self.abandoned.append(op)

    def take_off(self, name: bytes) -> None:
        pass

    def land(self, name: bytes, landing: Landing) -> None:
        self.landed.append(landing)


class Run:
    """One read under way."""

    def __init__(self, plan: ReadPlan) -> None:
        self.world = World()
        self.asked: list[Question] = []
        self.result: Any = None
        self._steps = steps.read(AskingPort(self.world), plan)  # type: ignore[arg-type]
        self._go(None)

    def _go(self, reply: Any) -> None:
        try:
            failed = isinstance(reply, BaseException)
            self.asked.append(self._steps.throw(reply) if failed else self._steps.send(reply))
        except StopIteration as done:
            self.result = done.value
        except (CacheError, KeyboardInterrupt) as error:
            self.result = error

    def reply(self, *replies: Any) -> Run:
        for reply in replies:
            assert self.result is None, f"it ended with {self.result!r} before {reply!r}"
            self._go(reply)
        return self

    @property
    def ops(self) -> list[Op]:
        return [question.op for question in self.asked if isinstance(question, Execute)]

    @property
    def loads(self) -> int:
        return sum(isinstance(question, Load) for question in self.asked)


def leased(item: Item = Item()) -> Leased:  # noqa: B008 - frozen
    return Leased(1, item)


def test_a_hit_is_decoded() -> None:
    run = Run(PLAN).reply(Hit(OLD))
    assert (run.result.value, run.result.source, run.result.version) == (["old"], "hit", 1)


def test_a_hit_of_absence_is_no_value() -> None:
    run = Run(PLAN).reply(Hit(Item(ABSENCE)))
    assert not run.result.found


def test_a_lease_is_loaded_and_stored_under() -> None:
    run = Run(PLAN).reply(leased(), ROW, Stored())
    assert run.result == Found(["new"], True, 2, "filled", 77, ROW.content)
    assert run.ops[1] == Fill(1, value_of(b"new"), 2, 60_000, 0, 77)
    assert run.world.landed == [run.result]


def test_absence_is_stored_for_its_own_life() -> None:
    run = Run(PLAN).reply(leased(), NO_ROW, Stored())
    assert run.ops[1] == Fill(1, ABSENCE, 0, 5_000, 0, 77)


def test_early_refresh_is_timed_within_the_last_share_of_the_life() -> None:
    plan = replace(PLAN, lives=replace(PLAN.lives, early=0.2))
    fill = Run(plan).reply(leased(), ROW, Stored()).ops[1]
    assert isinstance(fill, Fill)
    assert 0.8 * fill.ttl_ms <= fill.soft_ttl_ms < fill.ttl_ms


# --- somebody else holds the lease -------------------------------------------------------------


def test_stale_content_is_shown_while_another_loads() -> None:
    run = Run(PLAN).reply(Held(10, STALE))
    assert (run.result.value, run.result.source) == (["old"], "stale")


@pytest.mark.parametrize("item", [STALE.but(stale_until_ms=NOW_MS), Item()], ids=["too old", "nothing"])
def test_what_may_not_be_shown_is_waited_for(item: Item) -> None:
    run = Run(PLAN).reply(Held(10, item))
    assert run.asked[-1] == Wait(b"k", steps.FIRST_WAIT_MS)


def test_a_plan_without_stale_waits() -> None:
    assert isinstance(Run(STRONG).reply(Held(10, STALE)).asked[-1], Wait)


def test_a_waiter_looks_again_and_hits() -> None:
    run = Run(PLAN).reply(Held(10, Item()), None, Hit(OLD))
    assert run.result.source == "hit"


def test_pauses_grow_to_a_bound_and_waiting_ends_with_a_load() -> None:
    run = Run(PLAN)
    while not isinstance(run.asked[-1], Load):
        run.reply(Held(10, Item()) if isinstance(run.asked[-1], Execute) else None)
    pauses = [question.ms for question in run.asked if isinstance(question, Wait)]
    assert pauses == sorted(pauses)
    assert max(pauses) <= PLAN.pace.wait_ms
    assert sum(pauses) < PLAN.pace.wait_ms_max + PLAN.pace.wait_ms
    assert "wait_gave_up" in run.world.notes
    assert run.reply(ROW).result.source == "store"


def test_a_deadline_ends_a_wait() -> None:
    run = Run(PLAN).reply(Held(10, Item()), DeadlineExceeded("too late"))
    assert isinstance(run.result, DeadlineExceeded)


# --- what cannot be decoded --------------------------------------------------------------------


def broken(error: type[DecodeError]) -> ReadPlan:
    def decode(payload: bytes) -> Any:
        raise error("no")

    return replace(PLAN, decode=decode)


def test_an_undecodable_item_is_voided_and_filled_anew() -> None:
    run = Run(broken(DecodeError)).reply(Hit(OLD), Revoked(), leased(), ROW, Stored())
    assert isinstance(run.ops[1], Revoke)
    assert run.result.source == "filled"


def test_an_item_that_stays_undecodable_is_not_voided_again() -> None:
    run = Run(broken(DecodeError)).reply(Hit(OLD), Revoked(), Hit(OLD), ROW)
    assert run.result.source == "store"
    assert sum(isinstance(op, Revoke) for op in run.ops) == 1


def test_the_item_of_a_later_codec_is_left_alone() -> None:
    run = Run(broken(LaterCodec)).reply(Hit(OLD), ROW)
    assert run.result.source == "store"
    assert len(run.ops) == 1


def test_undecodable_stale_content_is_not_shown() -> None:
    assert isinstance(Run(broken(DecodeError)).reply(Held(10, STALE)).asked[-1], Wait)


# --- loads that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [FAILED, StoreBudgetExceeded("too many loads")])
def test_a_failed_load_shows_stale_content_and_frees_the_lease(failure: CacheError) -> None:
    run = Run(PLAN).reply(leased(STALE), failure, Released())
    assert run.result.source == "stale"
    assert run.ops[-1] == Release(1)


def test_a_failed_load_without_anything_stale_is_raised() -> None:
    run = Run(PLAN).reply(leased(), FAILED, Released())
    assert run.result is FAILED
    assert run.ops[-1] == Release(1)


def test_a_failed_early_refresh_shows_what_is_still_fresh() -> None:
    assert Run(STRONG).reply(leased(OLD), FAILED, Released()).result.source == "hit"


def test_a_strong_read_shows_nothing_stale_when_its_load_fails() -> None:
    assert Run(STRONG).reply(leased(STALE), FAILED, Released()).result is FAILED


def test_a_lease_that_cannot_be_freed_ends_by_itself() -> None:
    assert Run(PLAN).reply(leased(STALE), FAILED, DOWN).result.source == "stale"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), DeadlineExceeded("too late")])
def test_an_interrupted_load_abandons_its_lease_and_lets_others_go_on(interruption: BaseException) -> None:
    run = Run(PLAN).reply(leased(), interruption)
    assert run.result is interruption
    assert run.world.abandoned == [Release(1)]
    assert run.world.landed == [None]


def test_a_value_too_large_is_returned_and_frees_the_lease() -> None:
    run = Run(PLAN).reply(leased(), replace(ROW, content=None), Released())
    assert (run.result.value, run.result.source) == (["new"], "store")
    assert "too_large" in run.world.notes


def test_a_strong_read_of_a_value_too_large_raises_the_floor() -> None:
    run = Run(STRONG).reply(leased(), replace(ROW, content=None), Released(), Raised())
    assert run.ops[-1] == RaiseFloor(2, "update", 10_000)


# --- fills that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [BelowFloor(3), LeaseLost(), DOWN], ids=["floor", "lease", "down"])
def test_a_strong_read_raises_the_floor_to_what_it_returns(refusal: Any) -> None:
    run = Run(STRONG).reply(leased(), ROW, refusal, Raised())
    assert run.ops[-1] == RaiseFloor(2, "update", 10_000)
    assert (run.result.source, run.loads) == ("store", 1)


def test_a_strong_read_revokes_where_it_has_no_version() -> None:
    run = Run(STRONG).reply(leased(), NO_ROW, LeaseLost(), NoOp())
    assert run.ops[-1] == Revoke(10_000)


def test_an_eventual_read_returns_what_was_refused() -> None:
    run = Run(PLAN).reply(leased(), ROW, BelowFloor(3))
    assert run.result.source == "store"


def test_absence_that_a_floor_keeps_out_revokes_so_that_the_next_may_fill() -> None:
    run = Run(PLAN).reply(leased(), NO_ROW, BelowFloor(3), Revoked())
    assert run.ops[-1] == Revoke(10_000)
    assert not run.result.found


# --- the node cannot be reached, modes, moving keys ----------------------------------------------


def test_a_read_asks_the_store_when_the_node_is_down() -> None:
    assert Run(PLAN).reply(DOWN, ROW).result.source == "store"


@pytest.mark.parametrize("plan", [PLAN, STRONG])
def test_a_read_that_may_not_ask_the_store_is_refused(plan: ReadPlan) -> None:
    assert isinstance(Run(replace(plan, store_when_down=False)).reply(DOWN).result, CacheUnavailable)


def test_a_strong_read_that_cannot_raise_the_floor_is_refused_where_it_must_be() -> None:
    run = Run(replace(STRONG, store_when_down=False)).reply(leased(), ROW, LeaseLost(), DOWN)
    assert isinstance(run.result, CacheUnavailable)
    assert run.world.abandoned == [Release(1)]


def test_an_unexpected_answer_is_no_value() -> None:
    assert Run(PLAN).reply(Stored(), ROW).result.source == "store"


@pytest.mark.parametrize("mode", [Mode.NO_FILL, Mode.BYPASS])
def test_a_mode_that_fills_nothing_takes_no_lease(mode: Mode) -> None:
    run = Run(replace(PLAN, mode=mode)).reply(ROW)
    assert run.result.source == "store"
    assert run.ops == []


@pytest.mark.parametrize("mode", [Mode.NO_FILL, Mode.BYPASS])
def test_a_strong_read_keeps_its_promise_in_every_mode(mode: Mode) -> None:
    run = Run(replace(STRONG, mode=mode)).reply(ROW, NoOp())
    assert run.ops == [RaiseFloor(2, "update", 10_000)]


def test_a_strong_read_of_a_moving_key_raises_the_floor_on_both_names() -> None:
    run = Run(replace(STRONG, names=(b"old", b"new"))).reply(ROW, NoOp(), NoOp())
    assert [q.name for q in run.asked if isinstance(q, Execute)] == [b"old", b"new"]
    assert all(isinstance(op, RaiseFloor) for op in run.ops)


def test_an_eventual_read_of_a_moving_key_uses_the_current_name_alone() -> None:
    run = Run(replace(PLAN, names=(b"old", b"new"))).reply(leased(), ROW, Stored())
    assert {q.name for q in run.asked if isinstance(q, Execute)} == {b"old"}


# --- flights -------------------------------------------------------------------------------------


JOINS = replace(PLAN, joins=True)


def test_whoever_joins_a_flight_decodes_a_value_of_its_own() -> None:
    shared = ["new"]
    run = Run(JOINS).reply(Found(shared, True, 2, "filled", 77, value_of(b"new")))
    assert run.result == Found(["new"], True, 2, "joined", 77, value_of(b"new"), kept=True)
    assert run.result.value is not shared


def test_a_flight_that_failed_fails_those_who_joined() -> None:
    assert Run(JOINS).reply(FAILED).result is FAILED


@pytest.mark.parametrize("landing", [None, Found(["new"], True, 2, "store", 77, None)], ids=["none", "too large"])
def test_a_flight_without_a_result_for_others_is_not_joined(landing: Landing) -> None:
    run = Run(JOINS).reply(landing)
    assert isinstance(run.ops[0], Get)


@pytest.mark.parametrize("asked", [Requirement(min_version=3), Requirement(min_as_of_us=78)])
def test_a_flight_older_than_what_is_asked_is_not_joined(asked: Requirement) -> None:
    """It may have begun before this session's own write."""
    run = Run(replace(JOINS, requirement=asked)).reply(Found(["new"], True, 2, "filled", 77, value_of(b"new")))
    assert isinstance(run.ops[0], Get)


@pytest.mark.parametrize(("source", "kept"), [("filled", True), ("hit", True), ("store", False), ("joined", False)])
def test_of_what_another_call_found_it_is_known_whether_the_node_has_it(source: Any, kept: bool) -> None:
    assert Run(JOINS).reply(Found(["new"], True, 2, source, 77, value_of(b"new"))).result.kept is kept


def test_what_another_call_shows_as_stale_is_joined_as_stale() -> None:
    run = Run(JOINS).reply(Found(["old"], True, 1, "stale", 77, value_of(b"old")))
    assert (run.result.value, run.result.source) == (["old"], "stale")


@pytest.mark.parametrize("changes", [{"stale": False}, {"requirement": Requirement(min_version=1)}])
def test_who_may_not_be_shown_stale_content_joins_none(changes: Any) -> None:
    run = Run(replace(JOINS, **changes)).reply(Found(["old"], True, 1, "stale", 77, value_of(b"old")))
    assert isinstance(run.ops[0], Get)


@pytest.mark.parametrize("source", ["hit", "filled", "store"])
def test_a_find_that_began_before_what_has_to_be_seen_is_not_joined(source: Any) -> None:
    run = Run(replace(JOINS, joins_from_us=78)).reply(Found(["new"], True, 2, source, 77, value_of(b"new")))
    assert isinstance(run.ops[0], Get)


def test_who_finds_it_fresh_lands_that_for_the_others() -> None:
    run = Run(JOINS).reply(None, Hit(OLD))
    assert run.world.landed == [run.result]
    assert run.result.content == OLD.content


@pytest.mark.parametrize(("item", "source"), [(STALE, "stale"), (OLD, "hit")])
def test_nobody_waits_for_a_load_where_there_is_something_to_show(item: Item, source: str) -> None:
    run = Run(JOINS).reply(None, leased(item))
    assert isinstance(run.asked[-1], Load)
    (landing,) = run.world.landed
    assert isinstance(landing, Found)
    assert (landing.value, landing.source) == (["old"], source)


def test_a_node_that_is_away_is_asked_past_for_all_who_joined() -> None:
    run = Run(JOINS).reply(None, DOWN, ROW)
    assert run.world.landed == [run.result]
    assert run.result.source == "store"


@pytest.mark.parametrize(("strong", "landing"), [(False, CacheUnavailable), (True, type(None))])
def test_that_a_strong_read_may_not_do_without_the_node_is_no_rule_for_others(strong: bool, landing: type) -> None:
    run = Run(replace(STRONG if strong else PLAN, store_when_down=False)).reply(DOWN)
    assert isinstance(run.result, CacheUnavailable)
    assert [type(one) for one in run.world.landed] == [landing]


def test_a_strong_read_joins_no_flight_whatever_its_plan_says() -> None:
    assert isinstance(Run(replace(STRONG, joins=True)).asked[0], Execute)


@pytest.mark.parametrize("changes", [{"strong": True}, {"requirement": Requirement(min_version=3)}])
def test_a_read_that_asks_for_more_than_stale_is_not_shown_it_whatever_its_plan_says(changes: Any) -> None:
    plan = replace(PLAN, stale=True, **changes)
    assert isinstance(Run(plan).reply(Held(10, STALE)).asked[-1], Wait)
    assert Run(plan).reply(leased(STALE), FAILED, Released()).result is FAILED


def test_a_read_that_does_not_join_asks_the_node_at_once() -> None:
    assert not any(isinstance(q, Join) for q in Run(STRONG).asked)


# --- pauses --------------------------------------------------------------------------------------


class Leading(AskingPort):
    """Others of the process wait for this call."""

    def lead(self, name: bytes) -> bool:
        return True


PATIENT = replace(PLAN, pace=replace(PLAN.pace, wait_ms_max=60_000))


def pauses_while_held(port: type[AskingPort], taken_ms: int) -> list[int]:
    """The pauses of a reader until a load has taken so long that began when it first looked."""
    now_ms, pauses = 0, []
    step = steps.read(port(World()), PATIENT)  # type: ignore[arg-type]
    question = step.send(None)
    while now_ms < taken_ms:
        question = step.send(Held(PLAN.pace.hold_ms - now_ms, Item()))
        assert isinstance(question, Wait)
        pauses.append(question.ms)
        now_ms += question.ms
        question = step.send(None)
    step.close()
    return pauses


@pytest.mark.parametrize("taken_ms", [5, 50, 200, 1000])
def test_who_looks_for_its_process_notices_soon_that_a_load_has_ended(taken_ms: int) -> None:
    pauses = pauses_while_held(Leading, taken_ms)
    assert sum(pauses) - taken_ms <= max(steps.LEAD_WAIT_MS, min(taken_ms / 16, PLAN.pace.wait_ms))
    assert max(pauses) <= PLAN.pace.wait_ms


def test_who_looks_for_itself_looks_less_often() -> None:
    assert len(pauses_while_held(Leading, 200)) > 2 * len(pauses_while_held(AskingPort, 200))


def test_a_lease_that_a_wrong_clock_wrote_makes_no_pause_too_long_or_too_short() -> None:
    for left_ms in (0, 10**9):
        step = steps.read(Leading(World()), PLAN)  # type: ignore[arg-type]
        step.send(None)
        question = step.send(Held(left_ms, Item()))
        assert isinstance(question, Wait)
        assert 1 <= question.ms <= PLAN.pace.wait_ms
        step.close()


def test_a_look_after_a_pause_expects_that_nothing_has_to_change() -> None:
    run = Run(PLAN).reply(Held(10, Item()), None)
    first, second = run.ops
    assert isinstance(first, Get)
    assert isinstance(second, Get)
    assert (first.vacant, second.vacant) == (False, True)


# --- bounds ----------------------------------------------------------------------------------------

answers = st.sampled_from(
    [Held(10, Item()), Held(10, STALE), leased(), leased(STALE), Hit(OLD), BelowFloor(9), LeaseLost(), Stored(), DOWN]
)


@given(st.lists(answers, max_size=40), st.sampled_from([ROW, NO_ROW, replace(ROW, content=None)]), st.booleans())
def test_whatever_the_node_answers_a_strong_read_loads_once_and_ends(
    script: list[Any], row: Loaded, undecodable: bool
) -> None:
    """Every answer may be the worst one: the key is write-hot, evicted, taken over, or the node goes down."""
    plan = replace(STRONG, decode=broken(DecodeError).decode) if undecodable else STRONG
    run, told = Run(plan), iter(script)
    while run.result is None:
        question = run.asked[-1]
        if isinstance(question, Load):
            run.reply(row)
        elif isinstance(question, Wait):
            run.reply(None)
        else:
            run.reply(next(told, Held(10, Item())))
    assert isinstance(run.result, Found)
    assert run.loads <= 1
    waits = sum(isinstance(q, Wait) for q in run.asked)
    assert waits <= 14
    assert len(run.ops) <= waits + 6
