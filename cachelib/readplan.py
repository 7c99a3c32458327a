"""One read, decided: what `steps.py` goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cachelib.levels import always
from cachelib.model import ANY, Name, Requirement
from cachelib.policy import Lives, Mode, Pace
from cachelib.port import Found


@dataclass(slots=True)
class ReadPlan:
    """One read, decided: everything that does not depend on what the cache answers. Nobody changes it.

    Not frozen all the same: of twenty fields that would be 2 µs more for each miss.
    """

    key: Any
    names: tuple[Name, ...]
    """Where the item is; while a layout change is under way, also where it is going to be."""
    pace: Pace
    lives: Lives
    decode: Callable[[bytes], Any]
    """Bytes to value. Raises `DecodeError`, or `LaterCodec` where a newer program wrote them."""
    requirement: Requirement = ANY
    """What the level asks of an item, see `levels.py`."""
    holds: Callable[[], bool] = always
    """Asked after an item was read: the server is still the one that the requirement was made for."""
    proven: bool = True
    """The node's items may be served, if they meet the requirement. False: whatever it holds, the store is asked."""
    strong: bool = False
    mode: Mode = Mode.ON
    stale: bool = True
    """Content that is no longer fresh may be shown while another loads, or when the store fails."""
    also: Requirement = ANY
    """What an item has to be besides; where one that serves is not, the store is asked."""
    joins: bool = True
    joins_from_us: int = 0
    """Only a load that began then (the store's clock) or later."""
    record: Callable[[Found], Found] | None = None
    """Told how the read ended; it answers that, with what is known besides."""
    store_when_down: bool = True
    """Ask the store when the node cannot be reached, instead of raising."""
    gutter: Name | None = None
    """What the key is called on the node that keeps it for a moment while its own does not answer."""
    gutter_ms: int = 0
    """For how long; nobody tells that node of changes."""

    @property
    def name(self) -> Name:
        """Where reads are served from and fills go to."""
        return self.names[0]

    @property
    def shows_stale(self) -> bool:
        """A strong read, or one that asks for something as new as it knows of, is never shown stale content."""
        if not self.stale or self.strong:
            return False
        return (self.requirement is ANY or self.requirement == ANY) and (self.also is ANY or self.also == ANY)
