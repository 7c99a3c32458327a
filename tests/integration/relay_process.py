"""The relay as a real process, and what is in its topic."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from invalidator.formats.base import Changes, Heartbeat
from invalidator.formats.relay import Relay
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaConsumer, TopicPartition, closing

DECODE = Relay()


class RelayProcess:
    """`with RelayProcess(folder, store_url, bootstrap, topic) as relay:`."""

    def __init__(self, folder: Path, store: str, bootstrap: str, topic: str, *more: str, **environment: str) -> None:
        self._line = ["relay", "--store", store, "--kafka", bootstrap, "--topic", topic, "--http-port", "0", *more]
        self._environment = {"INVALIDATOR_APPLY__COMMIT": "100ms", "INVALIDATOR_RELAY__HEARTBEAT": "50ms"} | environment
        self.folder = folder
        self.log_file = folder / "relay.log"
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Self:
        """Start it, and wait until it says that it is ready."""
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "invalidator", *self._line],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready:"), f"it said {line!r}\n{self.log_file.read_text()}"
        self.url = re.findall(r"http://\S+", line)[0]
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)


def records(kafka: KafkaServer, topic: str) -> list[Any]:
    """Everything that is in the topic now."""
    with closing(KafkaConsumer, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        parts = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(parts)
        ends = consumer.end_offsets(parts)
        found: list[Any] = []
        while any(consumer.position(part) < ends[part] for part in parts):
            for some in consumer.poll(timeout_ms=500).values():
                found += some
    return found


def changes(found: list[Any]) -> Iterator[tuple[int, Any]]:
    """Those that are changes, with their partitions."""
    for record in found:
        decoded = DECODE(record.topic, record.key, record.value)
        if isinstance(decoded, Changes):
            yield from ((record.partition, change) for change in decoded.changes)


def heartbeats(found: list[Any]) -> dict[int, Heartbeat]:
    """The last one of each partition."""
    decoded = {record.partition: DECODE(record.topic, record.key, record.value) for record in found if not record.key}
    return {partition: beat for partition, beat in decoded.items() if isinstance(beat, Heartbeat)}
