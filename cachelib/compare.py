"""Does an item serve what the store has? Pure: from the item, what is known of the key, and a row that was loaded.

For who checks a cache from outside: the invalidator's verifier, and a cache that compares some of its own hits.
Both ask the cache first and the store last, and only where the item leaves a doubt, as Polaris does (Meta, "Cache
made consistent", 2022). The order of reads is what makes a finding certain: an item that was read before the store
may have been right when it was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from cachelib.envelope import decode, plain_hit
from cachelib.errors import DecodeError
from cachelib.item import serves
from cachelib.model import ANY, Content, Item, Kind, Version

Difference: TypeAlias = Literal["older", "newer", "absent", "gone", "differs"]
"""How an item is not what the store has: an older or newer version, absence of a row that exists, a row that is
gone, another content of the same version (or of a key without versions)."""


class Sight(Enum):
    """What an item alone tells of a change that everybody can read."""

    EMPTY = "empty"
    """No read would be served from it."""
    FRESH = "fresh"
    """It is from after the change."""
    SUSPECT = "suspect"
    """It may be from before: only the store can tell, or a version told already."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the store is known to have had for a key. `version` 0: it cannot be compared.

    `since_us`: the store's clock from which on whoever loads sees it.
    """

    version: Version
    gone: bool
    since_us: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What the store has for a key. `content` None: only its version was asked for, or it is too large to be kept."""

    found: bool
    version: Version
    content: Content | None
    as_of_us: int


def served(raw: bytes | None, now_ms: int) -> Item | None:
    """The item whose content a client that is given these bytes serves without asking anybody; None: it does not.

    By the client's own two tests of a hit, so that a fault in them is seen and not shared. Raises `DecodeError`.
    """
    if raw is None:
        return None
    item = decode(raw)
    return item if plain_hit(raw, now_ms) or serves(item, ANY) else None


def sight(item: Item | None, known: Known) -> Sight:
    """What an item that is served tells by itself."""
    if item is None:
        return Sight.EMPTY
    if known.version:
        absent = item.content.kind is Kind.ABSENCE
        # Absence that came without a version is right after a delete; otherwise a later delete may have left it.
        # At the version itself the row was there, or it was not: absence may have claimed a floor that is not its own.
        agrees = item.version > known.version or (absent == known.gone and (absent or item.version == known.version))
        return Sight.FRESH if agrees else Sight.SUSPECT
    return Sight.FRESH if item.as_of_us > known.since_us else Sight.SUSPECT


def certainly_stale(item: Item, known: Known, truth: Truth) -> bool:
    """Whether the item was behind the store already when it was read; False says nothing.

    `truth` was read after the item. So a difference alone may be younger than the reading: what counts is that the
    item lacks `known`, which is older than it.
    """
    if not known.version or item.version > known.version:
        return False
    if truth.found and truth.version < known.version:
        return False  # nobody can read the change yet
    if item.content.kind is Kind.ABSENCE and item.version in (0, known.version):
        return truth.found and truth.version == known.version  # else the row may have been away in between
    return item.version < known.version and difference(item, truth, None) is not None


def difference(item: Item, truth: Truth, unpack: Callable[[bytes], Any] | None) -> Difference | None:
    """How what the item serves is not what the store has. `unpack` makes a value of bytes; None compares versions only.

    Values are compared where bytes differ: two programs may pack the same value in two ways.
    """
    absent = item.content.kind is Kind.ABSENCE
    if absent or not truth.found:
        return None if absent and not truth.found else "absent" if absent else "gone"
    if truth.version and item.version != truth.version:
        return "older" if item.version < truth.version else "newer"
    if unpack is None or truth.content is None or item.content.payload == truth.content.payload:
        return None
    try:
        same = unpack(item.content.payload) == unpack(truth.content.payload)
    except DecodeError:
        return None  # of another program, or damaged: a read takes it for a miss (I12)
    return None if same else "differs"


def identity(item: Item) -> int:
    """The same for an item whose content was not stored anew in between."""
    return hash((item.version, item.as_of_us, item.content.kind, item.content.payload))
