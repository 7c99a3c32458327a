"""`make demo-kafka`: the demonstration over PostgreSQL, Debezium, Kafka, the invalidator and Redis, on one machine.

`python -m tests.soak.demo_kafka`; DEMO_BACKEND, DEMO_SECONDS and DEMO_BREAK as for `make demo`. Servers are started
for it on free ports, in temporary folders, and are gone at its end. Debezium captures the change log, so that the
invalidator is told the versions of deletes, too.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cachelib.errors import CacheError
from loadgen.commands import demonstration
from loadgen.servers import Invalidator
from loadgen.stage import Stage, StageSettings
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.missing import require
from tests.servers.postgresql import PostgresServer
from tests.servers.process import ServerFailed

_LOG = "leasecache_changes"
_PREFIX = "demo"
_PARTITIONS = 4
USAGE, INVALID = 2, 3


class KafkaStage(Stage):
    """A stage whose store is PostgreSQL, and whose changes come to the invalidator by Kafka."""

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._stack = ExitStack()
        self._environment: dict[str, str] = {}

    def fill(self) -> None:
        """See `Stage.fill`."""
        postgres = self._stack.enter_context(PostgresServer())
        kafka = self._stack.enter_context(KafkaServer())
        database = postgres.create_database("demo")
        self.store_url = postgres.url_of(database)
        super().fill()
        debezium = Debezium(kafka, postgres, database, [f"public.{_LOG}"], prefix=_PREFIX)
        kafka.create_topic(debezium.topic(_LOG), _PARTITIONS)
        self._stack.enter_context(debezium)
        self._environment = {
            "INVALIDATOR_SOURCE__KIND": "kafka",
            "INVALIDATOR_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "INVALIDATOR_KAFKA_SOURCE__TOPICS": debezium.topic(_LOG),
            # Static membership: after kill -9 the same member is back at once, not when its session ends (10 s).
            "INVALIDATOR_KAFKA_SOURCE__INSTANCE": "demo",
        }

    def new_invalidator(self) -> Invalidator:
        """See `Stage.new_invalidator`."""
        made = super().new_invalidator()
        made.environment = self._environment
        return made

    def close(self) -> None:
        """See `Stage.close`."""
        super().close()
        self._stack.close()


def main() -> int:
    """The demonstration's exit code; 2 with one sentence where something is missing."""
    seconds = float(os.environ.get("DEMO_SECONDS", "35"))
    backend, broken = os.environ.get("DEMO_BACKEND", "redis"), os.environ.get("DEMO_BREAK", "")
    try:
        for program in ("java", "mvn"):
            require(program)
        what = "PostgreSQL with airports, Debezium, Kafka"
        files = Path("build/demo-kafka.json"), Path("build/demo-kafka.html")
        return demonstration(backend, seconds, broken, *files, KafkaStage, what)
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        print(f"demo-kafka: {missing}", file=sys.stderr)
        return USAGE
    except (CacheError, ServerFailed) as failed:
        print(f"demo-kafka: {' '.join(str(failed).split())[:500]}", file=sys.stderr)
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
