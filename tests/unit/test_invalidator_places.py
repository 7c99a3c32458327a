"""What a person means by a place in the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cachelib.errors import ConfigError
from invalidator.onlooker import place_of

NOW_US = 1_800_000_000_000_000


class Log:
    """Partitions that begin somewhere; a time's place is the time."""

    def __init__(self, **start: str) -> None:
        self._start = start

    def start(self) -> dict[str, str]:
        return self._start

    def at(self, time_us: int) -> dict[str, str]:
        return dict.fromkeys(self._start, f"at {time_us}")


OUTBOX: Any = Log(log="0001.0002")
TOPIC: Any = Log(**{"t-0": "00000000000000000005@id", "t-1": "00000000000000000000@id"})


def place(log: Any, given: str) -> dict[str, str]:
    return dict(place_of(log, given, lambda: NOW_US))


def test_the_start() -> None:
    assert place(OUTBOX, "start") == {"log": "0001.0002"}


@pytest.mark.parametrize(
    ("given", "time_us"),
    [
        ("15m", NOW_US - 15 * 60 * 1_000_000),
        ("2d", NOW_US - 2 * 86_400 * 1_000_000),
        ("2026-05-01T12:00", datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp() * 1_000_000),
        ("2026-05-01T12:00:00+02:00", datetime(2026, 5, 1, 10, tzinfo=UTC).timestamp() * 1_000_000),
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC).timestamp() * 1_000_000),
    ],
)
def test_a_time(given: str, time_us: int) -> None:
    assert place(OUTBOX, given) == {"log": f"at {int(time_us)}"}


def test_a_position_of_the_outbox() -> None:
    assert place(OUTBOX, "0001.0005") == {"log": "0001.0005"}


def test_offsets_of_a_topic() -> None:
    seven = "00000000000000000007@id"
    assert place(TOPIC, "7") == {"t-0": seven, "t-1": seven}
    assert place(TOPIC, "t-1=7") == {"t-1": seven}


@pytest.mark.parametrize("given", ["yesterday", "t-9=1", "t-0=x", "1.5x", "2026-13-01"])
def test_what_is_no_place_is_said(given: str) -> None:
    with pytest.raises(ConfigError):
        place(TOPIC, given)
