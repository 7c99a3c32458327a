"""How to reach the brokers: the settings checked, and as each client library wants them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cachelib.errors import ConfigError
from cachelib.policy import one_of
from invalidator.settings import KafkaSettings, KafkaSourceSettings, Settings

FORMATS = ("detect", "relay", "debezium", "flattened", "outbox-router")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def check(settings: Settings) -> None:
    """Raise `ConfigError` where the settings of the source do not fit together."""
    kafka, source = settings.kafka, settings.kafka_source
    if not kafka.bootstrap:
        raise ConfigError("no broker is given: set [kafka] bootstrap, or INVALIDATOR_KAFKA__BOOTSTRAP")
    if not source.topics:
        raise ConfigError("no topic is given: set [kafka_source] topics, or INVALIDATOR_KAFKA_SOURCE__TOPICS")
    for setting, name in (*(("topics", topic) for topic in source.topics), ("instance", source.instance or "-")):
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise ConfigError(f"kafka_source.{setting}: {name!r} cannot be one; it takes letters, digits and ._-")
    formats(source)
    check_login(kafka, source)


def check_login(kafka: KafkaSettings, source: KafkaSourceSettings) -> None:
    """Raise `ConfigError` where nobody could log in with these settings, or a file that they name is not there."""
    _check_sasl(kafka, source)
    for setting in ("ca_file", "cert_file", "key_file"):
        path = getattr(kafka, setting)
        if path and not Path(path).is_file():
            raise ConfigError(f"kafka.{setting} names {path}, where there is no file")
    if bool(kafka.cert_file) != bool(kafka.key_file):
        raise ConfigError("kafka.cert_file and kafka.key_file are given together, or not at all")


def formats(source: KafkaSourceSettings) -> Mapping[str, str]:
    """The format of each topic. Raises `ConfigError`."""
    found = dict.fromkeys(source.topics, source.format)
    for given in source.formats:
        topic, _, form = given.rpartition("=")
        if topic not in found:
            raise ConfigError(f"kafka_source.formats has {given!r}: {topic!r} is not among kafka_source.topics")
        one_of(f"the format of {topic}", form, FORMATS)
        found[topic] = form
    return found


def _check_sasl(kafka: KafkaSettings, source: KafkaSourceSettings) -> None:
    if not kafka.security.startswith("SASL"):
        return
    if kafka.mechanism == "OAUTHBEARER":
        token(source)
    elif not (kafka.user and password(kafka)):
        raise ConfigError(f"{kafka.mechanism} needs kafka.user, and kafka.password or kafka.password_file")


def password(kafka: KafkaSettings) -> str:
    """The password. Raises `ConfigError`."""
    return kafka.password or (_secret("kafka.password_file", kafka.password_file) if kafka.password_file else "")


def token(source: KafkaSourceSettings) -> str:
    """The token of OAUTHBEARER as it is now: whoever renews it writes the file anew. Raises `ConfigError`."""
    if not source.token_file:
        raise ConfigError("OAUTHBEARER needs kafka_source.token_file")
    return _secret("kafka_source.token_file", source.token_file)


def _secret(setting: str, path: str) -> str:
    try:
        found = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting} names {path}, which cannot be read: {error}") from error
    if not found:
        raise ConfigError(f"{setting} names {path}, which is empty")
    return found


def for_kafka_python(kafka: KafkaSettings, source: KafkaSourceSettings) -> dict[str, Any]:
    """Options of kafka-python, but for the token's provider."""
    found: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap),
        "security_protocol": kafka.security,
        "ssl_check_hostname": source.hostnames == "check",
        "ssl_cafile": kafka.ca_file or None,
        "ssl_certfile": kafka.cert_file or None,
        "ssl_keyfile": kafka.key_file or None,
    }
    if kafka.security.startswith("SASL"):
        found["sasl_mechanism"] = kafka.mechanism
        if kafka.mechanism != "OAUTHBEARER":
            found |= {"sasl_plain_username": kafka.user, "sasl_plain_password": password(kafka)}
    return found


def for_librdkafka(kafka: KafkaSettings, source: KafkaSourceSettings) -> dict[str, Any]:
    """Options of confluent-kafka, but for the token's callback."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(kafka.bootstrap),
        "security.protocol": kafka.security,
        "ssl.endpoint.identification.algorithm": "https" if source.hostnames == "check" else "none",
    }
    given = {
        "ssl.ca.location": kafka.ca_file,
        "ssl.certificate.location": kafka.cert_file,
        "ssl.key.location": kafka.key_file,
    }
    found |= {name: value for name, value in given.items() if value}
    if kafka.security.startswith("SASL"):
        found["sasl.mechanism"] = kafka.mechanism
        if kafka.mechanism != "OAUTHBEARER":
            found |= {"sasl.username": kafka.user, "sasl.password": password(kafka)}
    return found
