"""The levels at which a run reads its keys, and what of each must never happen."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from loadgen.result import LevelFound, RunResult


class Level(IntEnum):
    """Of a key. `SESSION`: an eventual key that each thread reads and writes by its own `cache.session()`."""

    EVENTUAL = 0
    STRONG = 1
    SESSION = 2
    BOUNDED = 3


NEVER: Final[dict[Level, Sequence[tuple[str, str]]]] = {
    Level.EVENTUAL: (),
    Level.STRONG: (("stale", "strong reads were stale"),),
    Level.SESSION: (
        ("backwards", "reads of a session were older than what it had read before"),
        ("own_missed", "reads of a session were older than what it had written"),
    ),
    Level.BOUNDED: (("beyond", "bounded reads were older than their bound"),),
}
"""Fields of `LevelFound` that a level promises to be 0. Strong reads that go backwards are stale as well, but for
those from the store past an unreachable cache, of which the protocol promises no order."""


def broken_of(found: LevelFound) -> int:
    """Reads of a level that it promised never to show."""
    return sum(getattr(found, field) for field, _ in NEVER[Level[found.level.upper()]])


def promises_broken(run: RunResult) -> list[str]:
    """What a run broke, each in a sentence: its levels' promises, and that a value is what somebody wrote."""
    found = run.consistency
    if found is None:
        return []
    broken = [
        (getattr(one, field), what) for one in found.levels for field, what in NEVER[Level[one.level.upper()]]
    ]
    broken.append((found.wrong, "reads returned a wrong value"))
    return [f"{count:,} {what}" for count, what in broken if count]
