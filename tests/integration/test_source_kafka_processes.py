"""The daemon as a process over Kafka and Redis: killed, frozen, started with wrong settings."""

from __future__ import annotations

import gc
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache
from cachelib.layout import decode_layout
from cachelib.model import RowChange
from invalidator.formats.relay import RelayEncoder
from tests.conftest import revive
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, client, invalidator, tier, until
from tests.servers.kafka import PASSWORD, USER, KafkaServer, bearer_token
from tests.servers.kafka_python import KafkaProducer
from tests.servers.ports import free_port

LIBRARIES = ["kafka-python", "confluent"]
pytestmark = pytest.mark.slow
START_ERROR_S = 20.0
"""Six, and what Python takes to begin on a busy machine."""


class Town:
    """A shop whose changes come through a topic, and daemons that listen."""

    def __init__(self, kafka: KafkaServer, shop: Shop, redis_url: str, folder: Path, name: str) -> None:
        self.kafka, self.shop, self.redis_url, self.folder = kafka, shop, redis_url, folder
        self.topic = name
        kafka.create_topic(self.topic, 4)
        self._encoder = RelayEncoder()
        self.cleanup = ExitStack()
        self.cache: Cache = self.cleanup.enter_context(client(shop, redis_url))

    def daemon(self, library: str, number: int = 0, **source: Any) -> Daemon:
        folder = self.folder / f"daemon-{number}"
        folder.mkdir(exist_ok=True)
        settings = {"topics": [self.topic], "client": library, "session": "6s", "check": "500ms", **source}
        made = Daemon(
            folder,
            self.shop.url,
            [self.redis_url],
            source={"kind": "kafka"},
            kafka={"bootstrap": [self.kafka.bootstrap]},
            kafka_source=settings,
        )
        daemon = self.cleanup.enter_context(made)
        until(self.settled)  # the first one knows nothing of the nodes, so everything gets new epochs
        return daemon

    def settled(self) -> bool:
        return decode_layout(self.shop.store.read_layout() or b"").next is None

    def warm(self, ids: range) -> None:
        for one in ids:
            self.cache.get(CUSTOMERS, one)
        assert all(self.cache.read(CUSTOMERS, one).source == "hit" for one in ids)

    def change(self, ids: range, to: str) -> None:
        """In the store, behind the cache's back, and in the topic."""
        between = "id between :first and :last"
        self.shop.sql(f"update customers set tier = :to where {between}", to=to, first=ids[0], last=ids[-1])
        self.send(ids)

    def send(self, ids: range) -> None:
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap)
        for one in ids:
            key, value = self._encoder.change(RowChange("customers", "update", {"id": one}))
            producer.send(self.topic, value, key)
        producer.flush(timeout=20)
        producer.close(timeout=1)

    def agrees(self, ids: range, on: str) -> None:
        until(lambda: all(tier(self.cache, one) == on for one in ids))


@pytest.fixture
def town(
    kafka_server: KafkaServer, sqlite_url: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Town]:
    revive(kafka_server)
    shop = Shop(sqlite_url)
    made = Town(kafka_server, shop, redis_url, tmp_path, f"town-{abs(hash(request.node.name))}")
    with made.cleanup:
        yield made
    shop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


IDS = range(20)


@pytest.mark.parametrize("library", LIBRARIES)
def test_killed_member_is_replaced_by_the_other(town: Town, library: str) -> None:
    first, second = town.daemon(library, 0), town.daemon(library, 1)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    town.change(IDS, "silver")
    town.agrees(IDS, "silver")
    town.warm(IDS)
    first.kill()
    town.change(IDS, "gold")
    town.agrees(IDS, "gold")
    assert second.metric("partitions") == 4


@pytest.mark.parametrize("library", LIBRARIES)
def test_topic_created_again_while_the_daemon_was_frozen(town: Town, library: str) -> None:
    """Past the position it had: no client notices, only the topic's identity tells."""
    daemon = town.daemon(library)
    epochs = daemon.metric("epochs_total")
    town.warm(IDS)
    town.change(IDS, "silver")
    town.agrees(IDS, "silver")
    town.warm(IDS)
    daemon.signal(signal.SIGSTOP)
    try:
        town.kafka.delete_topic(town.topic)
        town.shop.sql("update customers set tier = 'gold'")  # what told of this is lost with the topic
        until(lambda: _created(town))
        town.send(range(1000, 1400))  # of nobody who is cached, and in every partition beyond where it was
    finally:
        daemon.signal(signal.SIGCONT)
    town.agrees(IDS, "gold")
    assert daemon.metric("epochs_total") > epochs
    until(lambda: town.settled() and daemon.get("/readyz")[0] == 200)
    town.warm(IDS)
    town.change(IDS, "platinum")
    town.agrees(IDS, "platinum")


def _created(town: Town) -> bool:
    from kafka.errors import KafkaError

    try:
        town.kafka.create_topic(town.topic, 4)
    except KafkaError:
        return False
    return True


@pytest.mark.parametrize("library", LIBRARIES)
def test_member_that_slept_longer_than_its_session_comes_back(town: Town, library: str) -> None:
    first, second = town.daemon(library, 0), town.daemon(library, 1)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    epochs = first.metric("epochs_total"), second.metric("epochs_total")
    town.warm(IDS)
    first.signal(signal.SIGSTOP)
    try:
        until(lambda: second.metric("partitions") == 4)
        town.change(IDS, "silver")
        town.agrees(IDS, "silver")
    finally:
        first.signal(signal.SIGCONT)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    town.change(IDS, "gold")
    town.agrees(IDS, "gold")
    assert (first.metric("epochs_total"), second.metric("epochs_total")) == epochs  # nothing was lost


@pytest.mark.parametrize("library", LIBRARIES)
def test_broker_that_restarts_is_waited_for(town: Town, library: str) -> None:
    daemon = town.daemon(library)
    town.warm(IDS)
    town.kafka.kill()
    time.sleep(1.0)  # let the clients notice
    town.kafka.start()
    town.change(IDS, "silver")
    until(lambda: all(tier(town.cache, one) == "silver" for one in IDS), 60)
    until(lambda: daemon.get("/readyz")[0] == 200)


# --- wrong settings --------------------------------------------------------------------------


def _fails(town: Town, library: str, **sections: Any) -> tuple[int, str]:
    """Exit code and what it says. It must be one sentence, soon."""
    folder = town.folder / "wrong"
    folder.mkdir(exist_ok=True)
    made = Daemon(
        folder,
        town.shop.url,
        [town.redis_url],
        source={"kind": "kafka"},
        kafka={"bootstrap": [town.kafka.bootstrap], **sections.get("kafka", {})},
        kafka_source={"topics": [town.topic], "client": library, **sections.get("source", {})},
    )
    began_s = time.monotonic()
    ended = invalidator(folder, "run", "--config", str(made.config))
    assert time.monotonic() - began_s < START_ERROR_S
    said = [line for line in ended.stderr.splitlines() if line.startswith("invalidator:")]
    assert len(said) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.returncode, said[0]


@pytest.fixture(scope="module")
def secured() -> Iterator[KafkaServer]:
    with KafkaServer(secured=True) as server:
        server.create_topic("guarded", 1)
        yield server


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_broker_is_one_sentence(town: Town, library: str) -> None:
    code, said = _fails(town, library, kafka={"bootstrap": [f"127.0.0.1:{free_port()}"]})
    assert code == 1
    assert "no Kafka broker answers at 127.0.0.1" in said


@pytest.mark.parametrize("library", LIBRARIES)
def test_missing_topic_is_one_sentence(town: Town, library: str) -> None:
    code, said = _fails(town, library, source={"topics": [town.topic, "no-such-topic"]})
    assert code == 2
    assert "'no-such-topic'" in said
    with town.kafka.admin() as admin:
        assert "no-such-topic" not in admin.list_topics()  # asking did not create it


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_wrong_password_is_one_sentence(town: Town, secured: KafkaServer, library: str, mechanism: str) -> None:
    login = {"security": "SASL_PLAINTEXT", "mechanism": mechanism, "user": USER, "password": "guessed-wrong"}
    code, said = _fails(
        town, library, kafka={"bootstrap": [secured.sasl_plaintext], **login}, source={"topics": ["guarded"]}
    )
    assert code == 2
    assert "refuses the login" in said
    assert "guessed-wrong" not in said


@pytest.mark.parametrize("library", LIBRARIES)
def test_untrusted_certificate_is_one_sentence(town: Town, secured: KafkaServer, library: str) -> None:
    login = {"security": "SASL_SSL", "mechanism": "PLAIN", "user": USER, "password": PASSWORD}
    code, said = _fails(town, library, kafka={"bootstrap": [secured.sasl_ssl], **login}, source={"topics": ["guarded"]})
    assert code == 2
    assert "certificate is not trusted" in said


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_login_over_tls_works(town: Town, secured: KafkaServer, library: str, mechanism: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    login = {"security": "SASL_SSL", "mechanism": mechanism, "user": USER, "password_file": str(tmp_path / "password")}
    folder = tmp_path / "tls"
    folder.mkdir()
    made = Daemon(
        folder,
        town.shop.url,
        [town.redis_url],
        source={"kind": "kafka"},
        kafka={"bootstrap": [secured.sasl_ssl], "ca_file": str(secured.ca), **login},
        kafka_source={"topics": ["guarded"], "group": f"{library}{mechanism}", "client": library},
    )
    with made as daemon:
        until(lambda: daemon.metric("partitions") == 1)
    assert PASSWORD not in made.log_file.read_text()


def _with_token(town: Town, secured: KafkaServer, library: str, folder: Path, token: str) -> Daemon:
    (folder / "token").write_text(f"{token}\n")
    login = {"security": "SASL_SSL", "mechanism": "OAUTHBEARER", "ca_file": str(secured.ca)}
    source = {"topics": ["guarded"], "group": f"{library}-token", "client": library}
    return Daemon(
        folder,
        town.shop.url,
        [town.redis_url],
        source={"kind": "kafka"},
        kafka={"bootstrap": [secured.sasl_ssl], **login},
        kafka_source={**source, "token_file": str(folder / "token")},
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_token_lets_in(town: Town, secured: KafkaServer, library: str, tmp_path: Path) -> None:
    folder = tmp_path / "token"
    folder.mkdir()
    token = bearer_token()
    made = _with_token(town, secured, library, folder, token)
    with made as daemon:
        until(lambda: daemon.metric("partitions") == 1)
    assert token not in made.log_file.read_text()


@pytest.mark.parametrize("library", LIBRARIES)
def test_token_that_is_over_is_one_sentence(town: Town, secured: KafkaServer, library: str, tmp_path: Path) -> None:
    folder = tmp_path / "token"
    folder.mkdir()
    token = bearer_token(life_s=-1000.0)
    made = _with_token(town, secured, library, folder, token)
    ended = invalidator(folder, "run", "--config", str(made.config))
    said = [line for line in ended.stderr.splitlines() if line.startswith("invalidator:")]
    assert ended.returncode == 2, ended.stderr
    assert len(said) == 1, ended.stderr
    assert "refuses the login" in said[0]
    assert token not in ended.stderr


@pytest.mark.parametrize("library", LIBRARIES)
def test_static_member_is_back_without_a_rebalance(town: Town, library: str) -> None:
    """The other one keeps its partitions, and so is not placed anew; the one that was killed goes on with its own."""
    named = {"session": "45s", "group": town.topic}  # a killed one stays in its group so long
    first, second = (town.daemon(library, number, instance=f"pod-{number}", **named) for number in range(2))
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    placed = [line["event"] for line in second.log()].count("placed anew")
    first.kill()
    town.change(IDS, "silver")
    first.start().ready()
    town.agrees(IDS, "silver")
    assert [line["event"] for line in second.log()].count("placed anew") == placed
    assert [first.metric("partitions"), second.metric("partitions")] == [2, 2]
