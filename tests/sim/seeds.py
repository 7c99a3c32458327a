"""The seeds that every run of the tests plays, in parts: one file each, so that the workers share them."""

from __future__ import annotations

from tests.sim.__main__ import chunk, tell

PART = 2_500
CHUNK = 500
"""Seeds of one test."""


def starts(part: int) -> range:
    """The first seed of each test of a part."""
    return range(part * PART, (part + 1) * PART, CHUNK)


def hold(start: int) -> None:
    """No seed of a test breaks a promise."""
    counts, failed = chunk(range(start, start + CHUNK))
    assert not failed, "\n".join([*map(str, failed), *tell(failed[0][0])])
    assert counts["checks"] > 5 * CHUNK
