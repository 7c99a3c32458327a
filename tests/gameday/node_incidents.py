"""A node that was given up, and does not catch up."""

from __future__ import annotations

import psycopg

from tests.gameday.day import Day, Incident
from tests.gameday.incidents import BURN, NODE_MAY, NODE_UP
from tests.gameday.shared_incidents import COLD, repeatedly
from tests.servers.process import ask
from tests.servers.redis import RedisServer

SLOW_MS = 100
"""Each way, for whatever passes: a few batches in a second."""


def _slow_node(day: Day) -> None:
    servers = day.servers
    connection = psycopg.connect(servers.postgres.dsn(servers.database), autocommit=True)
    day.undo(connection.close)
    job = "update boards set tier = 'b' || clock_timestamp()"
    day.memory["end"] = repeatedly(day, lambda: connection.execute(job), 0.03)
    day.happened("a batch job changes every board many times a second")
    day.undo(servers.network.clear)
    if isinstance(servers.second, RedisServer):
        assert ask(servers.second.port, b"SAVE\r\n", timeout_s=20).startswith(b"+OK")
        servers.second.kill()
        gone, back = "was killed", "what it had saved"
    else:  # memcached saves nothing: it has something to catch up with only where it ran all the time
        servers.network.always(("reset", 0))
        gone, back = "was cut off", "what it had"
    day.until(lambda: day.world.prometheus.query("min(invalidator_node_counts) == 0"), "the second node is given up")
    day.happened(f"the second node {gone}, and has been given up")
    servers.network.always(("delay", SLOW_MS))
    if not servers.second.running:
        servers.second.start()
    day.happened(f"it comes back with {back}, behind a network that has become slow")


def _emptied(day: Day) -> None:
    day.first({"page status": "is behind, and reads the log by itself", "page metrics": "behind_changes"})
    day.page.says("If it stands or grows: the node is slower than the writes")
    day.page.says("restart it without its data")
    server = day.servers.second
    server.kill()
    (server.folder / "dump.rdb").unlink(missing_ok=True)
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
)
