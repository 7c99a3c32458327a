"""From settings to a running relay: the store, the topic, and the server of probes and metrics."""

from __future__ import annotations

from typing import Self

import tenacity

from cachelib.errors import ConfigError, StoreError
from invalidator.config import redacted
from invalidator.daemon import open_store
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.producer import NotSent, Producer
from invalidator.relay import RelayService
from invalidator.settings import Settings
from invalidator.sources.outbox import Outbox
from invalidator.status import StatusServer

_TRIES = 3


class RelayDaemon:
    """`with RelayDaemon(settings) as daemon: daemon.service.run()`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        relay = settings.relay
        if not relay.topic:
            raise ConfigError("no topic is given: set [relay] topic, INVALIDATOR_RELAY__TOPIC or --topic")
        log = open_log(settings.log)
        self._producer = Producer(settings.kafka, settings.kafka_source, relay.topic, log)
        self._store = open_store(settings)
        self.service = RelayService(
            settings,
            store=self._store,
            source=Outbox(self._store, relay.consumer),
            topic=self._producer,
            log=log,
            metrics=Metrics(),
        )
        self._server: StatusServer | None = None

    def __enter__(self) -> Self:
        if self._settings.http.port >= 0:
            self._server = StatusServer(self.service, self._settings.http)
            self._server.start()
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((StoreError, NotSent)),
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self._settings.apply.retry_max_s),
            reraise=True,
        )
        retrying(self._store.identity)  # creates the log where there is none
        relay = self._settings.relay
        if retrying(self._producer.create_topic, relay.partitions, relay.replicas):
            self.service.log.info("created the topic", topic=relay.topic, partitions=relay.partitions)
        retrying(self.service.begin)

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
        self._producer.close()
        self._store.close()

    def says(self) -> str:
        """One line about what it does, without secrets."""
        where = f"; status on {self._server.url}" if self._server is not None else ""
        return f"{redacted(self._settings.store_url())} -> topic {self._settings.relay.topic}{where}"
