"""The log as somebody sees it who only looks: from outside any group, all of it, committing nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from cachelib.errors import ConfigError
from cachelib.policy import duration_ms
from cachelib.stores import SqlStore
from invalidator.column_types import ColumnTypes
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.rules import Rules
from invalidator.settings import Settings
from invalidator.sources.base import LOG_MARK, ChangeSource, Committed, Positions, log_of
from invalidator.sources.outbox import Outbox

_DIGITS = 20


@contextmanager
def looking_on(settings: Settings, store: SqlStore, rules: Rules, log: Log) -> Iterator[ChangeSource]:
    """The source of these settings. Raises `ConfigError`, `MissingExtra`, `StoreError`."""
    if settings.source.kind == "outbox":
        yield Outbox(store, settings.consumer)
        return
    found = _kafka(settings, store, rules, log)
    try:
        found.open(lambda: None)
        yield found
    finally:
        found.close()


def _kafka(settings: Settings, store: SqlStore, rules: Rules, log: Log) -> ChangeSource:
    from invalidator.sources.kafka import KafkaSource
    from invalidator.sources.kafka_login import check
    from invalidator.sources.kafka_open import builder
    from invalidator.sources.kafka_places import Part

    class AllOfIt(KafkaSource):
        """Reads through `reader` only, and never joins the group."""

        def open(self, done: Callable[[], Committed | None]) -> None:
            self._side.check_topics()
            topics = self._side.topics().items()
            self._parts = frozenset(Part(name, n) for name, topic in topics for n in range(topic.partitions))

    check(settings)
    types = ColumnTypes(settings, store, log)
    types.learn(rules.tables)
    return AllOfIt(settings, builder(settings, log), Metrics(), log, types=types.types)


def place_of(source: ChangeSource, given: str, now_us: Callable[[], int]) -> Positions:
    """What a person means by START, a time (2026-05-01T12:00, UTC), how long ago (15m), a position, or some of them.

    Several partitions have their positions as PARTITION=OFFSET,PARTITION=OFFSET, or one number for all.
    Raises `ConfigError`.
    """
    start = source.start()
    if given.upper() == "START":
        return start
    time_us = _time_us(given, now_us)
    if time_us is not None:
        return source.at(time_us)
    if "=" in given:
        return _each(given, start)
    if len(start) == 1 and not any(map(log_of, start.values())):
        return dict.fromkeys(start, given)
    return {partition: _offset(given, log_of(position)) for partition, position in start.items()}


def _time_us(given: str, now_us: Callable[[], int]) -> int | None:
    try:
        at = datetime.fromisoformat(given) if "-" in given else None
    except ValueError:
        at = None
    if at is not None:
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if given[-1:].isalpha():
        return now_us() - duration_ms("--from", given, most_ms=10**12) * 1000
    return None


def _each(given: str, start: Positions) -> Mapping[str, str]:
    found = {}
    for one in given.split(","):
        partition, _, offset = one.strip().rpartition("=")
        if partition not in start:
            raise ConfigError(f"--from: there is no partition {partition!r}; there are {', '.join(sorted(start))}")
        found[partition] = _offset(offset, log_of(start[partition]))
    return found


def _offset(given: str, log: str) -> str:
    if not (given.isascii() and given.isdigit()):
        raise ConfigError(f"--from: {given!r} is no offset; give START, a time such as 2026-05-01T12:00, or 15m")
    return f"{given.zfill(_DIGITS)}{LOG_MARK}{log}" if log else given.zfill(_DIGITS)
