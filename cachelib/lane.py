"""A lane: what the hit path of one entity needs, ready made for as long as the layout stands."""

from __future__ import annotations

import time
from typing import Any

from cachelib.entity import Entity
from cachelib.envelope import HEADER_BYTES, seen
from cachelib.keys import Key
from cachelib.l1 import PLAIN_KEYS, Copy, Shelf
from cachelib.metrics import Tally


class Lane:
    """See the module."""

    __slots__ = ("hit", "local", "near", "prefix", "render", "shelf", "tally", "unpack")

    def __init__(self, entity: Entity, prefix: bytes, tally: Tally, shelf: Shelf | None) -> None:
        self.prefix = prefix
        self.render = entity.template.render
        self.unpack = entity.packer.unpack
        self.tally = tally
        self.hit = tally.hit
        self.local = tally.locals.step
        self.shelf = shelf
        self.near = None if shelf is None else shelf.look
        """Looks a copy up in the process; None without L1."""

    def copy(self, key: Key, text: bytes) -> Copy | None:
        """The copy of a key that still may be served."""
        if self.near is None:
            return None
        copy = self.near(key if key.__class__ in PLAIN_KEYS else text)
        return copy if copy is not None and time.monotonic() < copy.until else None

    def value(self, raw: bytes) -> Any:
        """The value of a plain hit. Raises `DecodeError`."""
        return self.unpack(raw, HEADER_BYTES)

    def keep(self, key: Key, raw: bytes, value: Any, began: float, stamp: int) -> None:
        """Keep the value of a plain hit near. `stamp`: the shelf's, from before the node was asked at `began`."""
        if self.shelf is not None:
            text = self.render(key)
            at = key if key.__class__ in PLAIN_KEYS else text
            version, as_of_us = seen(raw)
            self.shelf.keep(at, text, stamp, Copy(value, began + self.shelf.ttl_s, text, len(raw), version, as_of_us))
