"""Incidents of the store: a key that all want and that is slow to load, and a session that holds up the others.

Leases are the node's, so the herd is another one on each backend; and who waits for the store waits for its leases.
"""

from __future__ import annotations

import psycopg

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN
from tests.gameday.shared_incidents import COLD, ROLLOUT


def _herd(day: Day) -> None:
    day.world.load(herd=3, sql_rate=3)
    day.world.herd_elsewhere(3)
    day.undo(day.world.stop_app, "other")
    day.happened("readers of two processes want one board all the time; it takes 150 ms, and changes 3 times a second")


def _stale_ttl(day: Day) -> None:
    day.first({"cachelib explain": "boards:1: "}, ENTITY="boards", KEY="1")
    day.page.says("`stale_ttl` on the entity lets readers show the row as it was meanwhile")
    day.page.says("in the daemon's entities as well")
    day.world.deploy(SHOP_STALE_TTL="1m")
    day.world.stop_app("other")
    day.world.start_app("other", SHOP_STALE_TTL="1m")
    day.undo(day.world.deploy)
    day.person("the application and the daemon are deployed with stale_ttl on the board")


herd = Incident(
    name="hot key herd",
    story="One key is read by many, changes all the time, and is slow to load.",
    alert="LeaseContention",
    stated_s=1800,
    breaks=_herd,
    mends=_stale_ttl,
    # For a while, and with readers: a process that has just begun has not waited yet.
    over='max_over_time(((sum(rate(leasecache_events_total{entity=~"boards.*",event="wait"}[5s])) or vector(0))'
    ' / sum(rate(leasecache_reads_total{entity=~"boards.*"}[5s])))[15s:1s]) < 0.01',
    may={
        "LeaseExpiredFills": "the key changes while it is loaded",
        "ConsumersDown": ROLLOUT,
        "StalenessBudgetBurnFast": "where the herd leaves the daemon no processor, changes do take over a second",
        "StalenessBudgetBurnSlow": "the same, over days",
        **COLD,
    },
    shares=True,
)


def _lock(day: Day) -> None:
    day.world.load(deadline="500ms", wide=0.3)
    connection = psycopg.connect(day.servers.postgres.dsn(day.servers.database))
    day.undo(connection.close)
    connection.execute("lock table customers in access exclusive mode")
    day.happened("a migration holds a lock on customers and does not end: whatever asks the store waits")


def _end_session(day: Day) -> None:
    day.first({"cachelib doctor": None})
    day.page.says("If `DeadlineExceeded`: the store is slow")
    with day.servers.connect() as connection:
        asked = day.page.action("select pid")
        found = connection.execute(asked).fetchall()  # type: ignore[call-overload]
        day.watch.note("runbook", asked, f"{found}")
        pid = next(row[0] for row in found if not row[1] and "lock table" in row[2])
        command = day.page.action("select pg_terminate_backend").replace("PID", str(pid))
        day.watch.note("runbook", command, f"{connection.execute(command).fetchall()}")


slow = Incident(
    name="store slow",
    story="A session of the store holds a lock; a third of the reads, with a deadline of 500 ms, finds nothing cached.",
    alert="ReadsFail",
    stated_s=480,
    breaks=_lock,
    mends=_end_session,
    over='(sum(rate(leasecache_reads_total{source="error"}[5s])) or vector(0)) < 0.001'
    " * sum(rate(leasecache_reads_total[5s]))",
    may={
        "LeaseContention": "who waits for the store waits for its leases",
        "InvalidationLagHigh": "such a lock has a transaction's number, which the store's own log is not read past",
        **BURN,
        **COLD,
    },
    shares=True,
)

STORE = (herd, slow)
