"""The chain under soak: three brokers, Connect, PostgreSQL, Redis, and up to two members of the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import psutil

from cachelib.stores import SqlStore
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaCluster, KafkaServer
from tests.servers.kafka_python import KafkaConsumer, TopicPartition, closing
from tests.servers.ports import free_port
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer
from tests.servers.together import Together
from tests.soak.entities import ITEM_KEYS, SCHEMA

NAMESPACE = "soak"
TABLES = ("ledger", "items")
PARTITIONS = 4
_ROOT = Path(__file__).parents[2]
_PREFIX = "soak"
# The kernel kills a child when the thread that started it ends: all are started from one that stays.
_starter = ThreadPoolExecutor(1, thread_name_prefix="members")


class Member:
    """One process of the daemon, which somebody may kill; `tend` starts it again when it ended by itself."""

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.wanted = False
        self.ended: list[str] = []
        """How it ended where nobody asked it to."""
        self.rss_mb: list[list[float]] = []
        """Of each life, second by second from when it was ready."""
        self.ready_once = False
        self._log = folder / f"{name}.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; does not wait until it is ready."""
        self.wanted, self.ready_once = True, False
        self._process = _starter.submit(self._popen).result()
        self.rss_mb.append([])

    def _popen(self) -> subprocess.Popen[bytes]:
        environment = {f"INVALIDATOR_{name}": str(value) for name, value in self._settings.items()}
        environment |= {"INVALIDATOR_HTTP__PORT": str(self.port), "INVALIDATOR_LOG__FORMAT": "json"}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "invalidator", "run"],
                cwd=_ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """`kill -9`."""
        self._end(lambda process: process.kill())

    def leave(self) -> bool:
        """As an orchestrator stops it; whether it went in time and said that all was well."""
        return self._end(lambda process: process.terminate()) == 0

    def _end(self, how: Any) -> int:
        self.wanted = False
        process, self._process = self._process, None
        if process is None:
            return 0
        how(process)
        try:
            return process.wait(25)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -1

    def tend(self) -> None:
        """Look at its memory; start it again where it has ended, as a supervisor does."""
        process = self._process
        if process is None:
            return
        code = process.poll()
        if code is None:
            if self.ready_once:
                self.rss_mb[-1].append(psutil.Process(process.pid).memory_info().rss / 1e6)
            self.ready_once = self.ready_once or self.answers("/readyz")
        elif self.wanted:
            when = "after it was ready" if self.ready_once else "as it started"
            self.ended.append(f"{self.name} ended with {code} {when}: {self.last_words()}")
            self.start()

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace").strip().rpartition("\n")[2][-300:]

    def answers(self, path: str) -> bool:
        """Whether a probe says yes."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def epochs(self) -> Mapping[str, int]:
        """By reason, how often new epochs were given, in all its lives."""
        found: dict[str, int] = {}
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "new epochs" in str(said.get("event")):
                reason = str(said.get("reason"))
                found[reason] = found.get(reason, 0) + 1
        return found


class World(Together):
    """`with World(folder) as world:` everything runs but the members."""

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        self.folder = folder

    def _start(self) -> None:
        enter = self.stack.enter_context
        self.redis = enter(RedisServer())
        self.postgres = enter(PostgresServer())
        self.kafka = enter(KafkaCluster())
        database = self.postgres.create_database("soak")
        self.store_url, self.dsn = self.postgres.url_of(database), self.postgres.dsn(database)
        with self.postgres.connect(database) as connection, SqlStore(self.store_url) as store:
            for statement in SCHEMA:
                connection.execute(statement)
            for table in TABLES:
                store.install(table)
            fill = f"insert into items (id, note) select g, 'first' from generate_series(0, {ITEM_KEYS - 1}, 2) g"
            connection.execute(fill)
        options = {"topic.creation.default.replication.factor": 3, "topic.creation.default.partitions": PARTITIONS}
        captured = [f"public.{table}" for table in TABLES]
        kafka = cast(KafkaServer, self.kafka)  # it is asked for its address only
        self.debezium = Debezium(kafka, self.postgres, database, captured, prefix=_PREFIX, options=options)
        self.topics = [self.debezium.topic(table) for table in TABLES]
        for topic in self.topics:
            self.kafka.create_topic(topic, PARTITIONS)
        enter(self.debezium)
        self.members = [Member(name, self._settings(), self.folder) for name in ("one", "other")]
        for member in self.members:
            self.stack.callback(member.kill)

    def _settings(self) -> Mapping[str, Any]:
        return {
            "NAMESPACE": NAMESPACE,
            "STORE__URL": self.store_url,
            "CACHES": self.redis.url,
            "ENTITIES": "tests.soak.entities:ENTITIES",
            "SOURCE__KIND": "kafka",
            "KAFKA__BOOTSTRAP": self.kafka.bootstrap.replace(",", " "),
            "KAFKA_SOURCE__TOPICS": " ".join(self.topics),
            "KAFKA_SOURCE__GROUP": "soak",
            # Rooms that fill in seconds: those of the defaults (60 MB for the window, 64 for the buffer) fill in
            # minutes, and memory that is never given back could not be told from memory that has found its bound.
            "APPLY__WINDOW": 5_000,
            "KAFKA_SOURCE__BUFFER_RECORDS": 2_000,
            "KAFKA_SOURCE__FETCH_BYTES": 256 << 10,
        }

    def behind(self) -> int:
        """Records that the group has not committed yet. Raises what the client raises while brokers are away."""
        options = {
            "bootstrap_servers": self.kafka.bootstrap.split(","),
            "group_id": "soak",
            "enable_auto_commit": False,
        }
        parts = [TopicPartition(topic, number) for topic in self.topics for number in range(PARTITIONS)]
        with closing(KafkaConsumer, **options) as consumer:
            ends = consumer.end_offsets(parts)
            return sum(ends[part] - (consumer.committed(part) or 0) for part in parts)


def until(said: Any, wait_s: float) -> bool:
    """Wait until something is true; whether it became so. Errors count as not yet."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        try:
            if said():
                return True
        except Exception:  # noqa: BLE001 - whatever is not there yet
            pass
        time.sleep(0.2)
    return False
