"""Making clients of kafka-python, which leave a thread and five descriptors behind where they cannot connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_FIRST_S = 1.5


def built(make: Callable[..., Any], **options: Any) -> Any:
    """A client. What it began is ended where it fails: with brokers away, a new one is tried every few seconds."""
    from kafka.net.compat import KafkaNetClient

    begun: list[Any] = []

    def network(**given: Any) -> Any:
        begun.append(KafkaNetClient(**given))
        return begun[-1]

    try:
        return make(**options, kafka_client=network)
    except BaseException:
        for one in begun:
            try:
                one.close()
            except Exception:  # noqa: BLE001 - it was of no use in any case
                pass
        raise


def tries_s(limit_s: float) -> Iterator[float]:
    """How long to try: shortly, since its log may tell that more is of no use, and then for the rest of the time."""
    first_s = min(_FIRST_S, limit_s / 2)
    yield first_s
    yield limit_s - first_s
