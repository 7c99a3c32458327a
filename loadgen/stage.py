"""The stage of a run: a folder, a filled store with its change log, a cache server, the invalidator.

`with Stage(…) as stage:` sets all of it up, and takes down what it has started, also after a failure.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cachelib.errors import ConfigError
from cachelib.stores import SqlStore
from loadgen.database import Database, connect
from loadgen.pinning import NOWHERE, Pins
from loadgen.record import ABSENT, stamp_of
from loadgen.servers import Invalidator, Memcached, Redis, ServerFailed, cache_server
from loadgen.tables import DATASETS, Dataset, Subject, fill_airports, fill_rows
from loadgen.worker import keys_file


@dataclass(frozen=True, slots=True)
class StageSettings:
    """`cache_url`: a running server instead of one of our own. `invalidator`: start it."""

    dataset: str
    backend: str = "redis"
    cache_url: str | None = None
    invalidator: bool = True
    keys: int = 1000
    payload_bytes: int = 100
    pins: Pins = NOWHERE


class Stage:
    """See the module."""

    def __init__(self, settings: StageSettings, dataset: Dataset | None = None) -> None:
        self.settings = settings
        self.dataset: Dataset = dataset or DATASETS[settings.dataset]
        self.folder = Path(tempfile.mkdtemp(prefix="loadgen-"))
        self.store_url = f"sqlite:///{self.folder / 'store.db'}"
        # On a server that others use, too: neither items nor the invalidator's notes of another run are met.
        self.namespace = f"loadgen-{secrets.token_hex(4)}"
        self.server: Redis | Memcached | None = None
        self.invalidator: Invalidator | None = None
        self.keys: list[list[str]] = []
        self.first: list[dict[str, int]] = []
        """By subject, the version of every row before the load."""

    def __enter__(self) -> Self:
        try:
            if self.settings.cache_url is None:
                self.server = cache_server(self.settings.backend, self.folder)
                self.server.processors = self.settings.pins.cache
                self.server.start()
            self.fill()
            if self.settings.invalidator:
                self.invalidator = self.new_invalidator()
                self.invalidator.start()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def cache_url(self) -> str:
        """Where the cache is."""
        if self.settings.cache_url is not None:
            return self.settings.cache_url
        if self.server is None:
            raise ConfigError("the stage has no cache: enter it first")
        return self.server.url

    @property
    def backend(self) -> str:
        """What kind of cache it is."""
        scheme = self.cache_url.partition("://")[0]
        return "memcached" if scheme == "memcached" else "redis"

    def new_invalidator(self) -> Invalidator:
        """The daemon for this stage, not started."""
        daemon = Invalidator(self.folder, self.store_url, self.cache_url, self.dataset.entities, self.namespace)
        daemon.processors = self.settings.pins.invalidator
        return daemon

    def fill(self) -> None:
        """Make the store; a stage with another one makes its own before."""
        with closing(connect(self.store_url)) as database:
            if self.store_url.startswith("sqlite"):
                database.execute("pragma journal_mode = wal")
            with database.transaction():
                self.keys = self.fill_tables(database)
        store = SqlStore(self.store_url)
        for subject in self.dataset.subjects:
            store.install(subject.table, key=subject.key)
        store.close()
        keys_file(self.folder).write_text(json.dumps(self.keys))
        self.first = [{key: version for key, (version, _) in self.rows(one).items()} for one in self.dataset.subjects]

    def fill_tables(self, database: Database) -> list[list[str]]:
        """Create and fill; the keys of each subject."""
        if self.settings.dataset == "airports":
            return fill_airports(database)
        return fill_rows(database, self.settings.keys, self.settings.payload_bytes)

    def rows(self, subject: Subject) -> Mapping[str, tuple[int, int]]:
        """Version and stamp of every row in the store now."""
        columns = f"{subject.key}, {subject.entity.version}, writer, seq"
        with closing(connect(self.store_url)) as database:
            found = database.execute(f"select {columns} from {subject.table}").fetchall()
        return {key: (version, stamp_of(writer, seq)) for key, version, writer, seq in found}

    def check_servers(self) -> None:
        """Raises `ServerFailed` where a server has ended by itself: then the run says nothing."""
        for server in (self.invalidator, self.server):
            if server is not None and not server.running:
                raise ServerFailed(f"{server.name} ended by itself: {server.last_words()}")

    def close(self) -> None:
        """Stop what was started, by its pid, and remove the folder."""
        for server in (self.invalidator, self.server):
            if server is not None:
                server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


NO_ROW = (0, ABSENT)
"""What stands for a row that does not exist."""
