"""Incidents of the applications: reads past the cache, layouts, formats and leases. They share a world with others.

Modes and layouts are kept in the store, so those are the same on both backends by nature. Items and leases are on the
node, and what reads and grants them there is another program on each.
"""

from __future__ import annotations

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN
from tests.gameday.servers import APP
from tests.gameday.shared_incidents import COLD

# --- reads past the cache ---------------------------------------------------------------------


def _leave_bypass(day: Day) -> None:
    usual = "avg_over_time(entity:hits:ratio_rate15m{entity='customers'}[432s] offset 18s) > 0.5"
    day.until(lambda: day.world.prometheus.query(usual), "there is an average of the day to compare with")
    day.calm()
    day.world.cluster.pod_shell("cachelib mode customers bypass")
    day.happened("somebody takes customers past the cache, and forgets it")


def _mode_on(day: Day) -> None:
    day.first({"cachelib layout": "mode bypass  customers"})
    day.page.says("mode `bypass`")
    day.turn_to("HitRatioDrop")
    day.first({"cachelib layout": "mode bypass  customers"})
    day.act("cachelib mode ENTITY on", "customers: on")


bypass = Incident(
    name="reads left past the cache",
    story="After an incident a person left an entity in mode bypass.",
    alert="OriginLoadHigh",
    stated_s=900,
    breaks=_leave_bypass,
    mends=_mode_on,
    over="namespace:loads:rate5m < 2 * avg_over_time(namespace:loads:rate5m[432s] offset 18s)"
    " and on () entity:hits:ratio_rate15m{entity='customers'}"
    " > avg_over_time(entity:hits:ratio_rate15m{entity='customers'}[432s] offset 18s) - 0.05",
    also=("HitRatioDrop",),
    shares=True,
)


# --- the layout -------------------------------------------------------------------------------


def _revoke_layout(day: Day) -> None:
    def sql(text: str) -> None:
        with day.servers.connect() as connection:
            connection.execute(text)

    sql(f"revoke select on leasecache_layout from {APP}")
    day.undo(sql, f"grant select on leasecache_layout to {APP}")
    day.happened("the application's user may no longer read the layout's table")


def _grant_layout(day: Day) -> None:
    day.first({"cachelib layout": "layout [0-9]"})
    day.page.says("If it prints the layout: clients only")
    statement = day.page.action("grant select on leasecache_layout").replace("USER", APP)
    with day.servers.connect() as connection:
        connection.execute(statement)  # type: ignore[call-overload]
    day.watch.note("runbook", statement)


layout = Incident(
    name="layout unread",
    story="The application's user in the store loses the right to read the layout.",
    alert="LayoutUnread",
    stated_s=600,
    breaks=_revoke_layout,
    mends=_grant_layout,
    over='(sum(rate(leasecache_events_total{event="layout_unread"}[5s])) or vector(0)) == 0',
    may={"WritesUnconfirmed": "a writer does not know where to tell the cache", **BURN, **COLD},
    shares=True,
)


# Few customers: who reads one of them in the right format repairs it, and so does the daemon after each write.
OTHERS = {"read_rate": 5, "write_rate": 16, "sql_rate": 0, "rows": 8}


def _older_release(day: Day) -> None:
    day.world.load("other", **OTHERS)
    day.world.start_app("other", SHOP_FORMAT="0")
    day.undo(day.world.stop_app, "other")
    day.happened("another program, with an older format of values, runs in the same namespace and writes customers")


def _own_namespace(day: Day) -> None:
    day.first({"cachelib explain": None})
    explained = day.page.first()[-1]
    day.until(lambda: "unreadable" in day.look(explained), "explain shows an item that cannot be read")
    day.page.says("something else writes under the same names")
    day.world.stop_app("other")
    day.world.load("other", **OTHERS, namespace="other")
    day.world.start_app("other", SHOP_FORMAT="0")
    day.person("the other program is deployed with a namespace of its own")
    day.act("cachelib clear ENTITY", "current")


undecodable = Incident(
    name="two formats under one name",
    story="Two programs that write different formats share a namespace.",
    alert="UndecodableItems",
    stated_s=1800,
    breaks=_older_release,
    mends=_own_namespace,
    over='(sum(increase(leasecache_events_total{event="undecodable"}[5s])) or vector(0)) == 0',
    may={**BURN, **COLD},
    shares=True,
)


def _short_leases(day: Day) -> None:
    for app in ("app", "other"):
        day.world.load(app, herd=6, boards=12, board_changes=False, write_rate=2, sql_rate=2)
        day.world.stop_app(app)
        day.world.start_app(app, SHOP_HOLD="50ms", SHOP_BOARD_TTL="1s")
    day.undo(day.world.stop_app, "other")
    day.happened("boards take 150 ms to load; a deployment gives their leases 50 ms")


def _longer_leases(day: Day) -> None:
    day.first({"cachelib explain": "lease"}, ENTITY="boards", KEY="1")
    day.page.says("leases end before the store answers")
    day.page.action("LeasePolicy(hold=…)")
    for app in ("app", "other"):
        day.world.stop_app(app)
        day.world.start_app(app, SHOP_HOLD="3s", SHOP_BOARD_TTL="1s")
    day.person("the application is deployed with leases that are longer than the slowest load")
    day.undo(_back, day)


def _back(day: Day) -> None:
    day.world.stop_app()
    day.world.load()
    day.world.start_app()


lease = Incident(
    name="leases too short",
    story="Leases end before the load does: another reader takes them, and what was loaded is refused.",
    alert="LeaseExpiredFills",
    stated_s=1800,
    breaks=_short_leases,
    mends=_longer_leases,
    over='(sum(rate(leasecache_events_total{event="fill_refused"}[5s])) or vector(0))'
    " < 0.01 * sum(rate(leasecache_loads_total[5s]))",
    may={"LeaseContention": "who waits for a lease that another holds", **BURN, **COLD},
    shares=True,
)

CLIENTS = (bypass, layout, undecodable, lease)
