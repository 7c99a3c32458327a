"""A node that was given up, and does not catch up."""

from __future__ import annotations

import psycopg

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN, NODE_MAY, NODE_UP
from tests.gameday.shared_incidents import COLD, REDIS, repeatedly
from tests.servers.process import ask

SLOW_MS = 100
"""Each way, for whatever passes: a few batches in a second."""


def _slow_node(day: Day) -> None:
    servers = day.servers
    connection = psycopg.connect(servers.postgres.dsn(servers.database), autocommit=True)
    day.undo(connection.close)
    job = "update boards set tier = 'b' || clock_timestamp()"
    day.memory["end"] = repeatedly(day, lambda: connection.execute(job), 0.03)
    day.happened("a batch job changes every board many times a second")
    assert ask(servers.second.port, b"SAVE\r\n", timeout_s=20).startswith(b"+OK")
    servers.second.kill()
    day.undo(servers.network.clear)
    day.until(lambda: day.world.prometheus.query("min(invalidator_node_counts) == 0"), "the second node is given up")
    day.happened("the second node was killed, and has been given up")
    servers.network.always(("delay", SLOW_MS))
    servers.second.start()
    day.happened("it comes back with what it had saved, behind a network that has become slow")


def _emptied(day: Day) -> None:
    day.first({"page status": "is behind, and reads the log by itself", "page metrics": "behind_changes"})
    day.page.says("If it stands or grows: the node is slower than the writes")
    day.page.says("restart it without its data")
    server = day.servers.second
    server.kill()
    (server.folder / "dump.rdb").unlink()
    server.start()
    day.person("restarts the node without its data, in place of waiting")
    day.until(lambda: day.world.prometheus.query("min(invalidator_node_counts) == 1"), "the node counts at once", 30)
    day.memory["end"]()
    day.servers.network.clear()
    day.person("the batch job has ended, and the network is as it was")


behind = Incident(
    name="a node that does not catch up",
    story="A node that was given up comes back, and takes less than is written.",
    alert="NodeNotCounted",
    stated_s=660,
    breaks=_slow_node,
    mends=_emptied,
    over=NODE_UP,
    may={
        "CacheNodeDown": "it was down",
        "EverythingVoided": "it was given up",
        "InvalidationLagHigh": "it is behind once it counts, and 30 s are 1.5 s here",
        "InvalidationApplyErrors": "it was asked for while it was down",
        **NODE_MAY,
        **COLD,
        **BURN,
    },
    shares=True,
    second=True,
    backends=REDIS,
)
