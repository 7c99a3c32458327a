"""The daemon as a process over Kafka, started with wrong settings, and over brokers that want to know who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.invalidator_daemon import Daemon, invalidator, until
from tests.integration.kafka_town import LIBRARIES, Town
from tests.servers.kafka import PASSWORD, USER, KafkaServer, bearer_token
from tests.servers.ports import free_port

pytestmark = pytest.mark.slow
START_ERROR_S = 20.0
"""Six, and what Python takes to begin on a busy machine."""


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
