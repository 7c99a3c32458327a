"""Durations, shares and policies: read once, refused at once, and the message names the setting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.errors import ConfigError
from cachelib.policy import (
    LIFE_MS_MAX,
    Eventual,
    LeasePolicy,
    OnFailure,
    StoreBudget,
    Strong,
    Ttl,
    duration_ms,
    one_of,
    refuse_unknown,
    share,
)


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        ("250ms", 250),
        ("5s", 5_000),
        ("1.5s", 1_500),
        ("10m", 600_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        (" 2s ", 2_000),
        (3, 3_000),
        (0.25, 250),
        (0, 0),
        (timedelta(minutes=1, milliseconds=5), 60_005),
    ],
)
def test_a_duration_is_seconds_text_or_timedelta(given: object, ms: int) -> None:
    assert duration_ms("ttl", given) == ms  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "5",
        "5 s",
        "s",
        "5sec",
        "-1s",
        "1h30m",
        "1e3s",
        "ten",
        -1,
        float("nan"),
        float("inf"),
        True,
        None,
        [5],
        "999d",
    ],
)
def test_a_wrong_duration_names_its_setting(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"LeasePolicy\.hold"):
        duration_ms("LeasePolicy.hold", wrong)  # type: ignore[arg-type]


@given(st.integers(0, LIFE_MS_MAX))
def test_milliseconds_as_text_come_back(ms: int) -> None:
    assert duration_ms("ttl", f"{ms}ms") == ms


def test_a_duration_outside_its_bounds_says_them() -> None:
    with pytest.raises(ConfigError, match="between 1000 ms and 2000 ms"):
        duration_ms("ttl", "3s", least_ms=1000, most_ms=2000)


@pytest.mark.parametrize(
    ("given", "number"), [(0, 0.0), (1, 1.0), (0.25, 0.25), ("10%", 0.1), ("0.5", 0.5), ("100%", 1.0)]
)
def test_a_share_is_a_number_or_a_percentage(given: object, number: float) -> None:
    assert share("Ttl.jitter", given) == pytest.approx(number)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "101%", "ten", "%", "", float("nan"), None, [], True])
def test_a_wrong_share_names_its_setting(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"Ttl\.jitter"):
        share("Ttl.jitter", wrong)  # type: ignore[arg-type]


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="has no setting 'tll': did you mean 'ttl'"):
        refuse_unknown("entity 'x'", ["tll"], ["ttl", "codec"])


def test_an_unknown_setting_like_no_other_lists_all() -> None:
    with pytest.raises(ConfigError, match="it takes codec, ttl"):
        refuse_unknown("entity 'x'", ["zzzzzz"], ["ttl", "codec"])


def test_a_wrong_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"write is 'trough'.*did you mean 'through'"):
        one_of("write", "trough", ("through", "populate"))


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: LeasePolicy(hold="10ms"), r"LeasePolicy\.hold"),
    (lambda: LeasePolicy(hold="2m"), r"LeasePolicy\.hold"),
    (lambda: LeasePolicy(wait=0), r"LeasePolicy\.wait "),
    (lambda: LeasePolicy(wait_max="1x"), r"LeasePolicy\.wait_max"),
    (lambda: Ttl(jitter=2), r"Ttl\.jitter"),
    (lambda: Ttl(early="200%"), r"Ttl\.early"),
    (lambda: OnFailure(read="stor"), r"OnFailure\.read is 'stor'.*did you mean 'store'"),  # type: ignore[arg-type]
    (lambda: OnFailure(write="confrim"), r"OnFailure\.write is 'confrim'.*did you mean 'confirm'"),  # type: ignore[arg-type]
    (lambda: Strong(unavailable="rise"), r"Strong\.unavailable is 'rise'.*did you mean 'raise'"),  # type: ignore[arg-type]
    (lambda: StoreBudget(at_once=0), r"StoreBudget\.at_once"),
    (lambda: StoreBudget(at_once="5"), r"StoreBudget\.at_once"),  # type: ignore[arg-type]
    (lambda: StoreBudget(at_once=1.5), r"StoreBudget\.at_once"),  # type: ignore[arg-type]
    (lambda: StoreBudget(at_once=True), r"StoreBudget\.at_once"),
    (lambda: StoreBudget(per_s=0), r"StoreBudget\.per_s"),
    (lambda: StoreBudget(per_s="9"), r"StoreBudget\.per_s"),  # type: ignore[arg-type]
    (lambda: StoreBudget(per_s=float("nan")), r"StoreBudget\.per_s"),
    (lambda: StoreBudget(wait="1y"), r"StoreBudget\.wait"),
]


@pytest.mark.parametrize(("build", "names"), WRONG)
def test_a_wrong_policy_is_refused_when_it_is_built(build: Callable[[], object], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        build()


@pytest.mark.parametrize("policy", [LeasePolicy, Ttl, OnFailure, StoreBudget, Strong, Eventual])
def test_every_policy_has_defaults_and_is_frozen(policy: type) -> None:
    built = policy()
    with pytest.raises((AttributeError, TypeError)):
        built.anything = 1
    assert built == policy()


def test_a_waiter_waits_longer_than_a_lease_is_held() -> None:
    default = LeasePolicy()
    assert duration_ms("wait_max", default.wait_max) > duration_ms("hold", default.hold)
