"""From settings to a running service: the store, the nodes, the rules, and the server of probes and metrics."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

import tenacity

from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.errors import ConfigError, StoreError
from cachelib.places import as_its_like
from cachelib.stores import SqlStore
from invalidator.column_types import ColumnTypes
from invalidator.config import node_name, redacted
from invalidator.dead_letters import DeadLetters, FileOfDeadLetters
from invalidator.logs import Log, open_log
from invalidator.metrics import Metrics
from invalidator.overview import Overview
from invalidator.pace import Pace
from invalidator.rules import Rules, rules_from
from invalidator.service import Service
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource
from invalidator.sources.outbox import Outbox
from invalidator.status import StatusServer

_STORE_TRIES = 3
_COLLECTED = (50_000, 20, 50)
"""After so many new objects; the middle and the old ones after so many times."""


def open_nodes(settings: Settings) -> list[tuple[str, Backend]]:
    """The cache nodes by name. Raises `ConfigError`; connects to none."""
    nodes = []
    for url in settings.cache_urls():
        try:
            nodes.append((node_name(url), from_url(url)))
        except ValueError as error:  # ConfigError among them; the text of others may hold the password
            said = str(error) if isinstance(error, ConfigError) else "it cannot be read"
            raise ConfigError(f"the cache URL {redacted(url)} is wrong: {said.replace(url, redacted(url))}") from error
    return nodes


def reached(settings: Settings, name: str) -> Backend:
    """A node that the layout names, with the credentials of one like it. Raises `ConfigError`."""
    kind = urlsplit(name).scheme
    like = next((url for url in settings.cache_urls() if urlsplit(url).scheme == kind), name)
    return from_url(as_its_like(name, like))


def open_store(settings: Settings) -> SqlStore:
    """The store. Raises `ConfigError`; connects at the first question."""
    url = settings.store_url()
    try:
        return SqlStore(url)
    except ConfigError as error:
        raise ConfigError(f"the store URL is wrong: {str(error).replace(url, redacted(url))}") from error


def open_source(
    settings: Settings, store: SqlStore, rules: Rules, types: ColumnTypes, metrics: Metrics, log: Log
) -> ChangeSource:
    """Where changes are read from. Raises `ConfigError`, `MissingExtra`, `StoreError`; joins when opened."""
    if settings.source.kind == "outbox":
        return Outbox(store, settings.consumer)
    from invalidator.sources.kafka_open import open_kafka

    installed = all(is_logged(store, table) for table in rules.tables)
    types.learn(rules.tables)
    return open_kafka(settings, metrics, log, versions=installed, types=types.types)


def open_letters(settings: Settings, log: Log) -> DeadLetters | None:
    """Where dead letters are kept; None for nowhere. Raises `ConfigError`, `MissingExtra`."""
    chosen = settings.dead_letters
    if chosen.topic and chosen.file:
        raise ConfigError("dead_letters: give a topic or a file, not both")
    if chosen.topic:
        from invalidator.dead_letters_kafka import TopicOfDeadLetters
        from invalidator.producer import Producer

        return TopicOfDeadLetters(Producer(settings.kafka, settings.kafka_source, chosen.topic, log))
    return FileOfDeadLetters(chosen.file, chosen.bytes_max) if chosen.file else None


def read_rules(settings: Settings, *, anew: bool = False) -> Rules:
    """The rules; `anew` imports the application's modules again. Raises `ConfigError`."""
    if anew:
        for name in settings.entities:
            module = sys.modules.get(name.partition(":")[0])
            if module is not None:
                _again(module)
    return rules_from(settings.entities, settings.rules, settings.apply.refresh_bytes_max)


def _again(module: Any) -> None:
    try:
        importlib.reload(module)
    except Exception as error:
        raise ConfigError(f"{module.__name__} cannot be imported again: {error!r}") from error


def is_logged(store: SqlStore, table: str) -> bool:
    """Whether the store logs this table's changes. Raises `StoreError`."""
    try:
        return store.status(table).installed
    except ConfigError:
        return False  # there is no such table


def rest_the_collector() -> None:
    """Look for cycles seldom, and not among what is there by now. For the process that is the daemon's alone.

    What a change is made of has none, and looking for them took a quarter of the time.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTED)


class Daemon:
    """`with Daemon(settings) as daemon: daemon.service.run()`. `settings` reads them, at the start and on a reload."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.settings = settings()
        rules = read_rules(self.settings)
        nodes = open_nodes(self.settings)
        self._store = open_store(self.settings)
        metrics, log = Metrics(), open_log(self.settings.log)
        self._types = ColumnTypes(self.settings, self._store, log)
        self._pace = Pace()
        self._source = open_source(self.settings, self._store, rules, self._types, metrics, log)
        self.service = Service(
            self.settings,
            store=self._store,
            source=self._source,
            nodes=nodes,
            reach=lambda name: reached(self.settings, name),
            rules=rules,
            reload=lambda: self._reread(settings()),
            log=log,
            metrics=metrics,
            letters=open_letters(self.settings, log),
            pace=self._pace.saw,
        )
        self._server: StatusServer | None = None

    def _reread(self, settings: Settings) -> Rules:
        rules = read_rules(settings, anew=True)
        if self.settings.source.kind == "kafka":
            try:
                self._types.learn(rules.tables)
            except StoreError as error:
                raise ConfigError(f"the types of columns are not known: {error}") from error
        return rules

    def __enter__(self) -> Self:
        if self.settings.http.port >= 0:
            self._server = StatusServer(Overview(self.service), self.settings.http)
            self._server.start()
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StoreError),
            stop=tenacity.stop_after_attempt(_STORE_TRIES),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self.settings.apply.retry_max_s),
            reraise=True,
        )
        self._source.open(self.service.fleet.done)
        retrying(self.service.begin)
        if not self._source.capability.whole:
            return  # others may log what this source carries
        for table in self.service.rules.tables:
            if not is_logged(self._store, table):
                self.service.log.warning(
                    "changes of a table are not logged: install it (cachelib install)", table=table
                )

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
        self._pace.rest()
        self._source.close()
        self._store.close()

    def says(self) -> str:
        """One line about what it does, without secrets."""
        nodes = ", ".join(worker.name for worker in self.service.fleet)
        where = f"; status on {self._server.url}" if self._server is not None else ""
        return f"{redacted(self.settings.store_url())} -> {nodes}{where}"
