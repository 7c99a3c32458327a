"""The programme: no alert is forgotten, and what shares a world can."""

from __future__ import annotations

from tests.charts.metrics import GROUPS
from tests.gameday.programme import ALL, NOT_CAUSED

ALERTS = {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
CAUSED = {alert for incident in ALL for alert in incident.alerts}


def test_every_alert_is_caused_by_an_incident_or_says_why_not() -> None:
    assert CAUSED | NOT_CAUSED.keys() == ALERTS
    assert not CAUSED & NOT_CAUSED.keys()


def test_what_may_fire_as_well_are_alerts() -> None:
    for incident in ALL:
        assert set(incident.may) <= ALERTS, incident.name


def test_incidents_are_played_on_both_backends() -> None:
    one_alone = {incident.name for incident in ALL if set(incident.backends) != {"redis", "memcached"}}
    assert one_alone == {"cache restarted with old data"}  # memcached keeps nothing


def test_names_are_unique_and_nothing_that_needs_kafka_shares_a_world_without() -> None:
    assert len({incident.name for incident in ALL}) == len(ALL)
    assert not [incident.name for incident in ALL if incident.shares and incident.needs_kafka]
