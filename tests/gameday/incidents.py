"""The incidents: what breaks, which alert must say so, and what the page tells a person to do."""

from __future__ import annotations

import time

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


ALONE = (dead, poison, broker, slot, node, old)
SHORT = (dead, node)
