"""The calm: what fires before anything is broken is a false alarm; only what an earlier incident left is forgiven."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.gameday import watch as module
from tests.gameday.watch import FalseAlarm, Watch
from tests.integration.invalidator_daemon import until
from tests.servers.prometheus import PrometheusServer


class Scripted:
    """A Prometheus that says what it is told to; which its own rules would need minutes to say."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def alerts(self) -> list[dict[str, Any]]:
        return [{"labels": {"alertname": name}, "state": state} for name, state in self.states.items()]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)


def watching(scripted: Scripted, **settings: bool) -> Watch:
    return Watch(cast("PrometheusServer", scripted), **settings)


def seen(watch: Watch, scripted: Scripted, **states: str) -> None:
    """Prometheus says so from now on, and it was looked at."""
    scripted.states = states
    until(lambda: watch.looked and watch.states == states)


def test_alert_that_fires_in_the_calm_is_a_false_alarm_though_it_is_over() -> None:
    with watching(scripted := Scripted()) as watch:
        seen(watch, scripted)
        seen(watch, scripted, HitRatioDrop="pending", BadKeys="firing")
        seen(watch, scripted)
        with pytest.raises(FalseAlarm, match=r"in the calm, before anything was broken: BadKeys \(\d"):
            watch.begin()


def test_alert_that_only_waits_in_the_calm_is_none() -> None:
    with watching(scripted := Scripted()) as watch:
        seen(watch, scripted, HitRatioDrop="pending")
        seen(watch, scripted)
        watch.begin()
        assert not watch.fired


def test_what_an_earlier_incident_has_left_behind_is_forgiven() -> None:
    with watching(scripted := Scripted(BadKeys="firing"), after_another=True) as watch:
        seen(watch, scripted, BadKeys="firing")
        seen(watch, scripted)
        watch.begin()
        assert not watch.fired


def test_where_no_incident_was_before_the_first_look_forgives_nothing() -> None:
    with watching(scripted := Scripted(BadKeys="firing")) as watch:
        seen(watch, scripted, BadKeys="firing")
        with pytest.raises(FalseAlarm, match="BadKeys"):
            watch.begin()


def test_only_what_the_first_look_saw_firing_is_forgiven() -> None:
    with watching(scripted := Scripted(BadKeys="firing", HitRatioDrop="pending"), after_another=True) as watch:
        seen(watch, scripted, BadKeys="firing", HitRatioDrop="pending")
        seen(watch, scripted, BadKeys="firing", HitRatioDrop="firing")
        seen(watch, scripted)
        with pytest.raises(FalseAlarm, match=r"broken: HitRatioDrop \([^)]*\)$"):
            watch.begin()


def test_what_is_forgiven_and_then_fires_anew_is_a_false_alarm() -> None:
    with watching(scripted := Scripted(BadKeys="firing"), after_another=True) as watch:
        seen(watch, scripted, BadKeys="firing")
        seen(watch, scripted)
        seen(watch, scripted, BadKeys="firing")
        with pytest.raises(FalseAlarm, match="BadKeys"):
            watch.begin()


def test_a_calm_in_the_middle_of_an_incident_is_as_strict() -> None:
    """Some incidents prepare their world for a while, and begin only then."""
    with watching(scripted := Scripted()) as watch:
        seen(watch, scripted)
        watch.begin()
        seen(watch, scripted, OriginLoadHigh="firing")
        with pytest.raises(FalseAlarm, match="OriginLoadHigh"):
            watch.begin()


def test_what_fires_after_it_began_is_the_incidents() -> None:
    with watching(scripted := Scripted()) as watch:
        seen(watch, scripted)
        watch.begin()
        seen(watch, scripted, BadKeys="firing")
        assert watch.fired["BadKeys"] >= 0
