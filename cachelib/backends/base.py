"""What the core asks of a cache server. A backend is a codec and a transport: it decides nothing.

What it must do with an operation is `item.apply`. Between two operations it may drop an item
(an eviction), and nothing else. `cachelib.testing.conformance` checks that.

Both protocols raise `CacheUnavailable` where the server cannot be reached, does not answer in
time or answers something unknown; the connection is then dropped, and whether an operation
took effect is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from cachelib.errors import CacheError, CacheUnavailable
from cachelib.model import Answer, Name, Op, Put, RaiseFloor, Revoke
from cachelib.proof import Seen

Batch: TypeAlias = Sequence[tuple[Name, Op]]
Results: TypeAlias = list[Answer | CacheError]

VOIDING = (Put, RaiseFloor, Revoke)
"""Operations that leave nothing older behind. Of bytes that the backend cannot read it makes
nothing (I12), but these operations drop them: another program may be able to read them."""


class ConnectionLost(CacheUnavailable):
    """The connection ended before all replies were there. A fresh one may do: the server may have restarted."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a kind of server can and cannot keep. Callers look here, never at a backend's type."""

    kind: str
    """`memory`, `redis`, `memcached` …: for metrics and messages only."""
    name_bytes_max: int
    """The longest name, bytes. Longer keys are hashed before they get here."""
    payload_bytes_max: int
    """The largest payload of an item, bytes."""
    ttl_step_ms: int
    """How coarsely the server counts an item's life."""
    life_ms_max: int
    """The longest life that the server counts; a longer one is cut to this."""
    names_printable: bool
    """Names may hold no spaces and no control characters. (`keys.py` makes none.)"""
    shared: bool
    """Other processes see the same items."""


class Backend(Protocol):
    """One cache node, for threads. Safe to use from several threads and after a fork."""

    capability: Capability

    def get(self, name: Name) -> bytes | None:
        """The item's bytes as they are, or None: the hit path, one round trip, changes nothing."""

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """`get` for many names in one round trip."""

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """Apply one operation."""

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """Apply one operation to each name (names differ), pipelined. An error stands in its place."""

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """`execute_many`, then keep `notes`, behind the batch and on the connection that carried it (I11).

        The notes are kept only if every operation before them was answered. A chunk of the
        batch that fails leaves the notes unwritten.
        """

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """Notes kept by `apply`; None where the node has none."""

    def instance(self) -> str:
        """Which start of the server answers now: changes when it restarts or another takes its place."""

    def watch(self, seen: Seen) -> None:
        """From now on tell `seen` which start of the server a new connection leads to, before it is used.

        Connections opened before are not used again. Where `seen` answers True, neither are all others but this one.
        """

    def close(self) -> None:
        """Close every connection. Using the backend afterwards opens new ones."""


@runtime_checkable
class Tells(Protocol):
    """What a `Backend` may have besides: then the invalidator need not void an empty node that it has never met."""

    def empty(self) -> bool:
        """Whether the node surely keeps nothing at all: no item, so nobody has a lease on it, and no note."""


class Addressed(Protocol):
    """What a `Backend` may have besides, where two servers may tell the same `instance`: then a session that goes from
    the one to the other, each a cache of its own, tells them apart all the same."""

    address: str
    """Where the server is, in words that mean it on every machine."""


class Overlapping(Protocol):
    """What a `Backend` may have besides, as its attribute `overlapping`: its batches as conversations (`overlap.py`).

    A pool asks its nodes side by side then. Nodes without it are asked one after the other.
    """

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""


class Rack(Protocol):
    """The connections of a transport that nobody uses, the last used last. `close` and a fork begin another rack."""

    free: list[Any]
    """Each with its socket's own `send` and `receive`. To take one is `pop`, to give it back `append`: atomic both."""
    busy: bool
    """Whoever has given one back has to `settle`: somebody waits, or the rack was closed."""

    def settle(self) -> None:
        """See `busy`."""


class Wire(Protocol):
    """What a `Backend` may have besides, as its attribute `wire`: how one value is asked for and how it comes, as data.

    The hit path of threads (`straight.py`) sends and receives by it in its own function. A request is `before` (the
    name's length), the name, `behind`. A reply that is one value is `opening`, the value's length in digits, `closing`,
    the name if it `names` it, CRLF, the value, CRLF. Nothing else that is so long begins like that.
    """

    rack: Rack
    behind: bytes
    opening: bytes
    closing: bytes
    names: bool

    def get(self, name: Name) -> bytes | None:
        """The backend's own `get`; one that has another, around it, is asked by that."""

    def before(self, length: int) -> bytes:
        """What stands before a name of so many bytes."""

    def rest(self, rack: Any, link: Any, name: Name, data: bytes) -> bytes | None:
        """Read what began with `data` and is no whole value, and give the link back. Raises `CacheUnavailable`."""

    def again(self, rack: Any, link: Any, name: Name, error: BaseException) -> bytes | None:
        """After `error` on this link: drop it, and ask over another where that may help. Raises `error` or what it
        means."""


def wire_of(backend: Backend) -> Wire | None:
    """A backend's wire. None where it has none, or where something stands around its own `get`."""
    wire: Wire | None = getattr(backend, "wire", None)
    return wire if wire is not None and wire.get == backend.get else None


class AsyncBackend(Protocol):
    """`Backend` with `await`, for one event loop at a time."""

    capability: Capability

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""

    async def instance(self) -> str:
        """See `Backend.instance`."""

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""

    async def close(self) -> None:
        """See `Backend.close`."""
