"""From settings to a source, with the client library that they name."""

from __future__ import annotations

from invalidator.formats.connect_json import Types
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import Settings
from invalidator.sources.kafka import KafkaSource
from invalidator.sources.kafka_client import Build, KafkaClient
from invalidator.sources.kafka_login import check, password
from invalidator.sources.kafka_logs import ClientLogs
from invalidator.sources.kafka_python_client import KafkaPythonClient, checksums_are_fast, kafka_python


def open_kafka(
    settings: Settings, metrics: Metrics, log: Log, *, versions: bool = False, types: Types | None = None
) -> KafkaSource:
    """Raises `ConfigError`, `MissingExtra`; connects when it is opened."""
    check(settings)
    return KafkaSource(settings, builder(settings, log), metrics, log, versions=versions, types=types)


def builder(settings: Settings, log: Log) -> Build:
    """Makes clients of the library that the settings name. Raises `MissingExtra`."""
    kafka, source = settings.kafka, settings.kafka_source
    logs = ClientLogs(log, [password(kafka)])
    if source.client == "confluent":
        from invalidator.sources.confluent_client import ConfluentClient
        from invalidator.sources.confluent_library import confluent

        confluent()
        logger = logs.attach("confluent_kafka")

        def build(group: str = "") -> KafkaClient:
            return ConfluentClient(kafka, source, logs, logger, group)

        return build
    kafka_python()
    logs.attach("kafka")
    if not checksums_are_fast():
        log.warning("crc32c is missing: checking checksums in Python takes ten times as long; pip install crc32c")
    return lambda group="": KafkaPythonClient(kafka, source, logs, group)
