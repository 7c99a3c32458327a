"""Incidents of a group's members, and of commits that the log shows before they can be read: with Kafka only.

Neither touches a cache node, so the cause is the same on both backends; what follows is not quite: a new group begins
with new epochs, and what waits for its second look is told again, to the node of each backend in its own way.
"""

from __future__ import annotations

import itertools

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN, READY
from tests.gameday.shared_incidents import repeatedly

# --- members that come and go -----------------------------------------------------------------

STAYS_S = 5.0


def _second_release(day: Day) -> None:
    names = (f"preview-{number}" for number in itertools.count())
    values = day.world.values()

    def next_pod() -> None:
        day.world.cluster.visitor(next(names), values)

    day.undo(day.world.cluster.end_visitors)
    day.memory["end"] = repeatedly(day, next_pod, STAYS_S)
    day.happened("a second release of the chart, with the same group, whose pods are killed and made anew all the time")


def _own_group(day: Day) -> None:
    day.first({"page metrics": 'rebalances_total{what="taken"}', "kubectl": "preview-"})
    day.page.says("give each release its own `config.consumer`, which names the group as well")
    day.memory["end"]()
    values = day.world.values()
    del values["config"]["kafka_source"]["group"]
    values["config"]["consumer"] = "preview"
    day.world.cluster.visitor("preview-own", values)
    day.person("the second release is deployed with a consumer of its own")


rebalances = Incident(
    name="members come and go",
    story="Pods of a second release join the group of the first, and are killed, again and again.",
    alert="RebalanceStorm",
    stated_s=900,
    breaks=_second_release,
    mends=_own_group,
    over=f'sum(increase(invalidator_rebalances_total{{what=~"taken|lost"}}[15s])) == 0 and on () {READY}',
    may={
        "EverythingVoided": "a new group begins with new epochs, as the page says",
        "OffsetGapOrReset": "a new group begins with new epochs, as the page says",
        "ConsumersDown": "a member without partitions is not ready at once, and 2 minutes are 6 seconds here",
        "InvalidationStalled": "while partitions move nothing is polled, and a minute is 3 seconds here",
        "InvalidationLagHigh": "while partitions move nothing is applied, and 30 s are 1.5 s here",
        **BURN,
    },
    needs_kafka=True,
)

# --- commits that wait ------------------------------------------------------------------------


def _standby_away(day: Day) -> None:
    def configured(*statements: str) -> None:
        with day.servers.connect() as connection:
            for statement in (*statements, "select pg_reload_conf()"):
                connection.execute(statement)  # type: ignore[call-overload]

    day.undo(configured, "alter system reset synchronous_standby_names")
    configured("alter system set synchronous_standby_names = 'standby'")
    day.happened("the synchronous standby is gone: commits wait for it, and the log shows them already")


def _without_standby(day: Day) -> None:
    day.first({"page metrics": "second_looks_oldest_seconds [1-9]"})
    assert not [row for row in day.sql("select application_name, sync_state") if row[0] == "standby"]
    assert day.sql("select pid, wait_event"), "nobody waits for the standby"
    with day.servers.connect() as connection:
        for part in ("alter system set synchronous_standby_names", "select pg_reload_conf"):
            statement = day.page.action(part)
            connection.execute(statement)  # type: ignore[call-overload]
            day.watch.note("runbook", statement)


hidden = Incident(
    name="commits wait for a standby",
    story="The synchronous standby is away: the log shows commits that nobody can read yet.",
    alert="SecondLooksWait",
    stated_s=360,
    breaks=_standby_away,
    mends=_without_standby,
    over=f"max(invalidator_second_looks_oldest_seconds) < 1 and on () {READY}",
    may={
        "InvalidationLagHigh": "what waited is applied late, and 30 s are 1.5 s here",
        "LeaseExpiredFills": "what is loaded is older than what the log has shown, and is not kept",
        "WritesUnconfirmed": "a commit that waits for longer than the store's time-out is unknown",
        "NoChangeLogTraffic": "writers hang in their commits, and 10 minutes are 30 seconds here",
        **BURN,
    },
    needs_kafka=True,
)

KAFKA = (rebalances, hidden)
