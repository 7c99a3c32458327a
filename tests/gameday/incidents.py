"""The incidents: what breaks, which alert must say so, and what the page tells a person to do."""

from __future__ import annotations

import time

import psycopg

from tests.gameday.cluster import NAME
from tests.gameday.day import Day, Incident
from tests.gameday.servers import DEAD, start
from tests.servers.kafka_python import KafkaProducer, closing
from tests.servers.process import ask
from tests.servers.redis import RedisServer

BURN = {
    "StalenessBudgetBurnFast": "changes were applied late: the budget was spent",
    "StalenessBudgetBurnSlow": "the same, over days",
}
# A Debezium topic proves no time up to which it is complete: there the page says to look at what waits.
LITTLE_LAG = (
    "(max(invalidator_lag_seconds) < 5"
    " or (max(invalidator_behind_changes) < 100 and on () sum(invalidator_lag_messages) < 100))"
)
READY = f"min(invalidator_ready) == 1 and on () {LITTLE_LAG}"


# --- the daemon -------------------------------------------------------------------------------


def _lose_machine(day: Day) -> None:
    day.world.cluster.lose_machine(f"{NAME}-0")
    day.happened("the machine of invalidator-0 is gone; nobody else runs")


def _force(day: Day) -> None:
    day.first(
        {
            "kubectl -n shop get": f"{NAME}-0 .*Terminating",
            "kubectl -n shop logs": None,
            "kubectl -n shop desc": "NodeNotReady",
        }
    )
    day.page.says("If `Terminating` and never gone")
    day.act("kubectl -n shop delete pod invalidator-0 --force", "force deleted")


dead = Incident(
    name="invalidator dead",
    story="The machine of the only daemon dies. Kubernetes does not replace the pod: it cannot know that it is gone.",
    alert="ConsumersDown",
    stated_s=120,
    breaks=_lose_machine,
    mends=_force,
    over=READY,
    may=BURN,
)


# --- the log ----------------------------------------------------------------------------------


def _poison(day: Day) -> None:
    assert day.servers.kafka is not None
    assert day.servers.debezium is not None
    day.servers.kafka.delete_topic(DEAD)
    day.happened(f"somebody deletes the topic {DEAD}")
    time.sleep(2)
    with closing(KafkaProducer, bootstrap_servers=day.servers.kafka.bootstrap, acks="all") as producer:
        for _ in range(3):
            producer.send(day.servers.debezium.topic("customers"), b"\x00poison", key=b"?").get(20)
    day.happened("three records that nobody can read are sent to the topic of customers")


def _keep_letters(day: Day) -> None:
    assert day.servers.kafka is not None
    day.first({"page status": "dead", "page metrics": "dead_letters_waiting"})
    day.page.says("If a topic: does it exist")
    day.servers.kafka.create_topic(DEAD)
    day.person(f"Kafka's people make the topic {DEAD} again")


poison = Incident(
    name="consumer stuck on a poison message",
    story="Records that cannot be read, and the topic for dead letters is gone: the consumer stops (pending_max = 3).",
    alert="DeadLettersUnkept",
    stated_s=600,
    breaks=_poison,
    mends=_keep_letters,
    over="max(invalidator_dead_letters_waiting) == 0",
    may={
        "UndecodableRecords": "they cannot be read: the cause",
        "DeadLetters": "they are kept at last",
        "InvalidationStalled": "reading stops where pending_max of them wait",
        "SecondLooksWait": "second looks are made in the log's order, so they wait behind the letter",
        **BURN,
    },
    needs_kafka=True,
    pending_max=3,
)


def _kill_broker(day: Day) -> None:
    assert day.servers.kafka is not None
    day.servers.kafka.kill()
    day.happened("the broker is killed")


def _start_broker(day: Day) -> None:
    assert day.servers.kafka is not None
    day.first({"page status": "problems", "page metrics": "progress_timestamp"})
    said = day.run(day.page.action("invalidator check"), wanted=None)
    assert "kafka" in said.lower() or day.servers.kafka.bootstrap in said, f"check does not name the broker: {said}"
    start(day.servers.kafka)
    day.person("Kafka's people start the broker")
    day.servers.mend_connect()
    day.person("Connect's task runs again")


broker = Incident(
    name="Kafka broker down",
    story="The only broker that has the topic is killed.",
    alert="InvalidationStalled",
    stated_s=120,
    breaks=_kill_broker,
    mends=_start_broker,
    over=READY,
    may=BURN,
    needs_kafka=True,
)


def _lose_slot(day: Day) -> None:
    assert day.servers.debezium is not None
    day.servers.debezium.kill()
    with day.servers.connect() as connection:
        day.until(
            lambda: connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"
            ).fetchall(),
            "the slot can be dropped",
        )
    day.happened("the connector's slot is lost (a failover, or somebody tidied up); changes are written on")


def _new_slot(day: Day) -> None:
    day.first({"invalidator check --config $CONFIG --dry": None})
    with day.servers.connect() as connection:
        asked = day.page.action("select slot_name")
        found = connection.execute(asked).fetchall()  # type: ignore[call-overload]
        day.watch.note("runbook", asked, f"{found}")
        assert not [slot for slot, active, _ in found if active], found
    day.page.says("Slot or connector was lost")
    day.servers.new_connector()
    day.person("the connector is made anew; what was written in between is in no topic")
    assert day.world.stale(), "nothing went stale: then this shows nothing"
    day.happened("rows that changed in between are served as they were: the page says that nothing notices")
    day.act("cachelib clear --all")


slot = Incident(
    name="CDC slot lost",
    story="The replication slot is dropped: what is written until there is a new one is in no log.",
    alert="NoChangeLogTraffic",
    stated_s=900,
    breaks=_lose_slot,
    mends=_new_slot,
    over="sum(rate(invalidator_changes_total[5s])) > 0 and on () max(invalidator_ready) == 1",
    may=BURN,
    needs_kafka=True,
)


# --- the cache --------------------------------------------------------------------------------


def _kill_node(day: Day) -> None:
    day.world.cache.kill()
    day.happened(f"{day.servers.backend} is killed")


def _start_node(day: Day) -> None:
    day.first({"page status": "problems", "cachelib doctor": None})
    day.page.says("Bring the node back")
    (day.world.cache.folder / "dump.rdb").unlink(missing_ok=True)
    day.world.cache.start()
    day.person(f"{day.servers.backend} is started, empty")


NODE_UP = f"min(invalidator_node_up) == 1 and on () min(invalidator_node_counts) == 1 and on () {LITTLE_LAG}"
NODE_MAY = {
    "EverythingVoided": "the node was away for longer than node_dead_after",
    "WritesUnconfirmed": "writers cannot tell a node that is away",
    "OriginLoadHigh": "every read asks the store",
    "HitRatioDrop": "every read asks the store",
}
node = Incident(
    name="cache node lost",
    story="The cache server is killed and comes back empty.",
    alert="CacheNodeDown",
    stated_s=60,
    breaks=_kill_node,
    mends=_start_node,
    over=NODE_UP,
    may={**NODE_MAY, **BURN},
)


def _old_data(day: Day) -> None:
    server = day.world.cache
    assert isinstance(server, RedisServer)
    assert ask(server.port, b"SAVE\r\n", timeout_s=20).startswith(b"+OK")
    day.happened("Redis saves what it has")
    time.sleep(3)
    server.kill()
    day.happened("three seconds of changes later it is killed")


def _start_old(day: Day) -> None:
    day.first({"page status": "problems", "cachelib doctor": None})
    day.page.says("If it comes back with old data: in order")
    day.turn_to("EverythingVoided")
    day.first({"page metrics": 'epochs_total{reason="node_dead"} [1-9]', "page status": "does not answer"})
    day.page.says("If `node_dead`: a node failed for longer than `apply.node_dead_after`")
    day.world.cache.start()
    day.person("Redis is started, with what it had saved")


old = Incident(
    name="cache restarted with old data",
    story="Redis is killed and comes back with a snapshot that is older than what was written since.",
    alert="CacheNodeDown",
    stated_s=60,
    breaks=_old_data,
    mends=_start_old,
    over=NODE_UP,
    also=("EverythingVoided",),
    may={**NODE_MAY, **BURN},
    backends=("redis",),  # memcached keeps nothing
)


# --- the store --------------------------------------------------------------------------------


def _herd(day: Day) -> None:
    day.world.load(herd=10, sql_rate=3)
    day.happened("ten readers want one board all the time; it takes 150 ms to load and changes three times a second")


def _stale_ttl(day: Day) -> None:
    day.first({"cachelib explain": "boards:1: "}, ENTITY="boards", KEY="1")
    day.page.says("`stale_ttl` on the entity lets readers show the row as it was meanwhile")
    day.page.says("in the daemon's entities as well")
    day.world.deploy(SHOP_STALE_TTL="1m")
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
        "ConsumersDown": "the only daemon is deployed anew, and 2 minutes are 6 seconds here",
        "StalenessBudgetBurnFast": "where the herd leaves the daemon no processor, changes do take over a second",
    },
)


def _lock(day: Day) -> None:
    day.world.load(deadline="500ms", wide=0.3)
    connection = psycopg.connect(day.servers.postgres.dsn(day.servers.database))
    day.world.stack.callback(connection.close)
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
    may={"LeaseContention": "who waits for the store waits for its leases", **BURN},
)

ALL = (dead, poison, broker, slot, node, old, herd, slow)
SHORT = (dead, node)
