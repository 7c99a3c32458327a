"""Incidents that share a world, over the store's own log: each takes a minute, and none needs Kafka.

What breaks here is the store, or what the daemon was told: never a cache node, so these are the same on both backends
by nature. They run on both all the same: the world is there, and both backends' series run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN, READY
from tests.gameday.servers import DAEMON

ROLLOUT = "the only daemon is deployed anew, and 2 minutes are 6 seconds here"
COLD = {
    "HitRatioDrop": "reads go past the cache, or find it cold",
    "OriginLoadHigh": "reads go past the cache, or find it cold",
}


def repeatedly(day: Day, do: Callable[[], object], every_s: float) -> Callable[[], None]:
    """Somebody does this all the time, until the returned function is called, or the incident is over."""
    stop = threading.Event()

    def run() -> None:
        with suppress(psycopg.Error):  # its session was ended: then it is over with it
            while not stop.wait(every_s):
                do()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()

    day.undo(end)
    return end


# --- dead letters -----------------------------------------------------------------------------


def _deploy_unwatched(day: Day) -> None:
    day.world.load(sql_rate=6)
    values = day.world.values()
    rule = {"template": "customers-of:{region}", "depends_on": {"customers": "region"}}
    values["config"] = {**values["config"], "rules": [rule]}
    day.world.cluster.upgrade(values)
    day.happened("the daemon is deployed with a rule about the column region, which nobody watches")


def _roll_back(day: Day) -> None:
    day.first({"page metrics": 'kind="bad_key"', "kubectl": "region"})
    day.page.says("If since our own deployment: roll back")
    day.act("helm -n shop rollback invalidator", "Rollback was a success")


flood = Incident(
    name="a flood of dead letters",
    story="A deployment names a column that the log does not carry: no change of that table tells its key.",
    alert="DeadLetterFlood",
    stated_s=600,
    breaks=_deploy_unwatched,
    mends=_roll_back,
    over="(sum(rate(invalidator_dead_letters_total[5s])) or vector(0)) == 0 and on () min(invalidator_ready) == 1",
    also=("DeadLetters", "BadKeys"),
    may={"ConsumersDown": ROLLOUT, **BURN, **COLD},
    shares=True,
)


# --- the daemon and its store -----------------------------------------------------------------


def _revoke_consumers(day: Day) -> None:
    def sql(text: str) -> None:
        with day.servers.connect() as connection:
            connection.execute(text)

    sql(f"revoke insert, update on leasecache_consumers from {DAEMON}")
    day.undo(sql, f"grant insert, update on leasecache_consumers to {DAEMON}")
    day.happened("a migration of rights: the daemon's user may no longer write where offsets are saved")


def _grant_consumers(day: Day) -> None:
    day.first(
        {
            "page status": "not saved: .*permission denied for table leasecache_consumers",
            "page metrics": "invalidator_commit_errors_total [1-9]",
        }
    )
    day.page.says("may not write to the log's tables")
    statement = day.page.action("grant select, insert, update, delete on leasecache_consumers").replace("USER", DAEMON)
    with day.servers.connect() as connection:
        connection.execute(statement)  # type: ignore[call-overload]
    day.watch.note("runbook", statement)


commits = Incident(
    name="offsets not saved",
    story="The daemon's user in the store loses the right to write how far it has read.",
    alert="CommitErrors",
    stated_s=900,
    breaks=_revoke_consumers,
    mends=_grant_consumers,
    over="sum(rate(invalidator_commits_total[5s])) > 0"
    " and on () sum(increase(invalidator_commit_errors_total[5s])) == 0",
    may=BURN,
    shares=True,
)


def _cut_sessions(day: Day) -> None:
    sessions = f"from pg_stat_activity where usename = '{DAEMON}' and query like '%leasecache_waiting%'"
    cut = f"select pg_terminate_backend(pid) {sessions}"
    connection = psycopg.connect(day.servers.postgres.dsn(day.servers.database), autocommit=True)
    day.undo(connection.close)
    day.memory["end"] = repeatedly(day, lambda: connection.execute(cut), 0.7)  # type: ignore[call-overload]
    day.happened("somebody's watchdog ends sessions of the daemon that wait, every few seconds")


def _let_sessions_be(day: Day) -> None:
    why = "terminating connection due to administrator command"
    shows = {"page status": f'"last_store_error": ".*{why}', "kubectl": f"{why}.*the store does not answer"}
    day.first({**shows, "invalidator check": None, "page metrics": "source_errors_total [1-9]"})
    day.page.says("the daemon needs nothing")
    day.memory["end"]()
    day.person("the watchdog is told to let them be")


source = Incident(
    name="sessions of the store that end",
    story="Something between daemon and store ends its sessions again and again; in between it reads.",
    alert="SourceErrors",
    stated_s=900,
    breaks=_cut_sessions,
    mends=_let_sessions_be,
    over=f"sum(increase(invalidator_source_errors_total[10s])) == 0 and on () {READY}",
    may={"CommitErrors": "its sessions end as well", **BURN},
    shares=True,
)


# --- the staleness objective ------------------------------------------------------------------


def _long_transactions(day: Day) -> None:
    day.world.load(write_rate=25, sql_rate=25)
    enough = "sum(increase(invalidator_visibility_seconds_count[108s])) > 1300"
    day.until(lambda: day.world.prometheus.query(enough), "there is as much as the objective wants", 240)
    day.calm()
    connection = psycopg.connect(day.servers.postgres.dsn(day.servers.database), autocommit=True)
    day.undo(connection.close)
    # It has a transaction's number, as one that writes has: the log cannot be read past it.
    job = "select pg_current_xact_id(), pg_sleep(1.3) /* nightly report */"
    repeatedly(day, lambda: connection.execute(job), 0.7)
    day.happened("a batch job: transactions of 1.3 s every two seconds; what is committed meanwhile waits for each")


def _end_transaction(day: Day) -> None:
    day.first({"page status": "lag|age_s", "page metrics": "invalidator_lag_seconds"})
    day.page.says("a long transaction in the store")
    pids: list[int] = []

    def look() -> bool:
        pids[:] = [row[0] for row in day.sql("select pid, now() - xact_start") if "nightly report" in row[-1]]
        return bool(pids)

    day.until(look, "the job is among the oldest transactions")
    day.sql("select pg_terminate_backend", PID=str(pids[0]))
    day.turn_to("StalenessBudgetBurnSlow")
    day.first({"page metrics": 'visibility_seconds_bucket.*le="1.0"'})
    day.page.says("batch jobs with long transactions")


burn = Incident(
    name="the staleness budget burns",
    story="A batch job has long transactions: what is committed meanwhile can be told to nobody until each has ended.",
    alert="StalenessBudgetBurnFast",
    stated_s=3600,
    breaks=_long_transactions,
    mends=_end_transaction,
    over="job:visibility_slow:ratio_rate5m < 0.001",
    also=("StalenessBudgetBurnSlow",),
    may={
        "InvalidationLagHigh": "30 s of lag are 1.5 s here, and the bound of the objective is 1 s in both worlds",
        **COLD,
    },
    shares=True,
)

SHARED = (flood, commits, source, burn)
