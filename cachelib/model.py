"""The words of PROTOCOL.md as types: an item, the operations on it and their answers.

Longer than 300 lines because they are one vocabulary, and each word has a line that says what it means.

Everything here is frozen and says nothing about how it is kept: `item.py` holds the rules,
`envelope.py` the bytes. Times that end in `_ms` are milliseconds and those that end in
`_us` microseconds, both since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, TypeAlias

Version: TypeAlias = int
"""1 .. 2**64-1, rising in commit order per row; 0 where there is none."""
Token: TypeAlias = int
"""A random nonce, 1 .. 2**64-1, that names one lease; 0 where there is none."""
Name: TypeAlias = bytes
"""What a node calls a key: namespace, epoch, tenure and key in one (see `keys.py`)."""

U64_MAX = 2**64 - 1


class Kind(IntEnum):
    """What an item holds."""

    NONE = 0
    VALUE = 1
    ABSENCE = 2


@dataclass(frozen=True, slots=True)
class Content:
    """A value's bytes, or absence (the store has no such row), or nothing at all."""

    kind: Kind
    payload: bytes = b""


NOTHING = Content(Kind.NONE)
ABSENCE = Content(Kind.ABSENCE)


def value_of(payload: bytes) -> Content:
    """The content that holds `payload`, an encoded value (see `envelope.py`)."""
    return Content(Kind.VALUE, payload)


@dataclass(frozen=True, slots=True)
class Item:
    """What the cache keeps for one key. PROTOCOL.md, "The item"."""

    content: Content = NOTHING
    void: bool = False
    known: bool = False
    """The version came with the content, so a later put may be compared with it."""
    version: Version = 0
    floor: Version = 0
    floor_gone: bool = False
    """The change that set the floor was a delete."""
    lease: Token = 0
    lease_until_ms: int = 0
    soft_expire_ms: int = 0
    """From here on one reader may refresh early; 0 for never."""
    as_of_us: int = 0
    """The store's clock, read before the snapshot that the content was loaded from."""
    stale_until_ms: int = 0
    """Until when content that is no longer fresh may be served as stale; 0 while it is fresh."""
    expires_ms: int = 0
    """The hard end of life. Always set in an item that a server keeps."""

    @property
    def fresh(self) -> bool:
        """The content may be served to somebody."""
        return self.content.kind is not Kind.NONE and not self.void and self.version >= self.floor

    def but(self, **changes: Any) -> Item:
        """A copy with these fields changed; `dataclasses.replace` takes twice as long."""
        copy = object.__new__(Item)
        for name, get, put in _FIELDS:
            put(copy, changes[name] if name in changes else get(self))
        return copy


_FIELDS = [(name, getattr(Item, name).__get__, getattr(Item, name).__set__) for name in Item.__slots__]


@dataclass(frozen=True, slots=True)
class Requirement:
    """How new a hit must be, beyond being fresh; any one that is asked and met suffices."""

    min_version: Version | None = None
    min_as_of_us: int | None = None


NO_ITEM = Item()
"""What a key holds of which nothing is kept."""
ANY = Requirement()

# --- operations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Get:
    """Read, and take the lease where there is nothing to serve (or it is time to refresh)."""

    token: Token
    hold_ms: int
    """How long the lease is held before another reader may take it."""
    requirement: Requirement = ANY
    vacant: bool = False
    """There was nothing a moment ago, or another's lease: a guess, by which a backend may choose its way; the answer is
    the same."""


@dataclass(frozen=True, slots=True)
class Fill:
    """A reader's write, under its lease. `version` 0: content that came without one."""

    token: Token
    content: Content
    version: Version
    ttl_ms: int
    soft_ttl_ms: int = 0
    as_of_us: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """A writer's write-through, after its commit. With `token`, under the lease it claimed."""

    content: Content
    version: Version
    change: RowOp
    ttl_ms: int
    stale_ttl_ms: int
    soft_ttl_ms: int = 0
    as_of_us: int = 0
    token: Token = 0


@dataclass(frozen=True, slots=True)
class RaiseFloor:
    """Void everything older than `version`."""

    version: Version
    change: RowOp
    stale_ttl_ms: int
    tombstone_ttl_ms: int = 0
    """Leave a floor behind where there is no item, for so long; 0 leaves nothing."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Void the item whatever its version. `create`: only cached absence has to go."""

    stale_ttl_ms: int
    create: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A writer takes the lease, also from a live holder."""

    token: Token
    hold_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """The load failed or was cancelled: let the next reader try at once."""

    token: Token


Op: TypeAlias = Get | Fill | Put | RaiseFloor | Revoke | Claim | Release

# --- answers ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """The item serves."""

    item: Item


@dataclass(frozen=True, slots=True)
class Leased:
    """The caller may fill. `item` is what the key held: perhaps stale, perhaps due for refresh."""

    token: Token
    item: Item


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else holds the lease for up to `retry_after_ms` more."""

    retry_after_ms: int
    item: Item


@dataclass(frozen=True, slots=True)
class Stored:
    """The content is in the item."""


@dataclass(frozen=True, slots=True)
class BelowFloor:
    """A fill was refused: something newer is known."""

    floor: Version


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A fill was refused: the item does not know this lease (evicted, revoked, taken over)."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """A put came after something at least as new."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The floor is now the version given; older content is no longer served."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """There was no item; a floor was left in its place."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The item is void, or was deleted: as if evicted."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The lease is the caller's."""


@dataclass(frozen=True, slots=True)
class Released:
    """The lease was the caller's and is free."""


@dataclass(frozen=True, slots=True)
class NoOp:
    """Nothing had to change."""


Answer: TypeAlias = (
    Hit
    | Leased
    | Held
    | Stored
    | BelowFloor
    | LeaseLost
    | Superseded
    | Raised
    | Tombstone
    | Revoked
    | Claimed
    | Released
    | NoOp
)

# --- what the store says ---------------------------------------------------------------------

RowOp: TypeAlias = Literal["create", "update", "delete"]
ChangeOp: TypeAlias = Literal["create", "update", "delete", "truncate"]


@dataclass(frozen=True, slots=True)
class Row:
    """What a loader answers for a key: the value and the version of the row that it came from.

    `version` is None for keys of many rows and for stores without versions.
    """

    value: Any
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class RowChange:
    """One committed (or about to be committed) change of one row, as the change log tells it.

    `key` holds the primary key's columns; `before` and `after` hold the key's columns, the
    watched ones and, where the source has them, all others. A row whose key changes is told
    as a delete and a create. A truncate has an empty key. `version` is None where unknown.
    """

    table: str
    op: ChangeOp
    key: Mapping[str, Any] = field(default_factory=dict)
    version: Version | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    tx: int | None = None
    """The store's transaction id, where it has one."""
    at_us: int = 0
    """The store's clock at the change (not at the commit), microseconds; 0 where unknown."""
