"""What the client machine may ask of the world, and nothing else.

`steps.py` is written over this. `drivers.py` has the ports: one that never suspends (threads),
one that awaits (asyncio), and one that hands each question out (batches, tests, simulation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from cachelib.errors import CacheError
from cachelib.model import Answer, Content, Name, Op, Token, Version

Source: TypeAlias = Literal["hit", "local", "filled", "joined", "stale", "store", "gutter"]
"""Where the value of a read came from.

hit: the item served. filled: loaded by this call and stored. joined: found or loaded by another call
of this process. stale: no longer fresh, shown because the policy allows it. store: loaded by this
call and not stored. local and gutter: see the README.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a read step found. `value` is decoded; without meaning where `found` is False."""

    value: Any
    found: bool
    version: Version
    source: Source
    as_of_us: int = 0
    content: Content | None = None
    """What was found, as it is kept: whoever joins this flight decodes a value of its own."""
    kept: bool = False
    """Of what another call found: the node has it, too."""
    proven_us: int = 0
    """It is no older than that, by the node's watermark; 0 where nobody proved it."""
    now_us: int = 0
    """The store's clock when the read began was not later; 0 where it was not asked."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store has for one key, both as it is kept and as it is returned.

    `content` is None where the value is too large to be kept.
    """

    content: Content | None
    value: Any
    found: bool
    version: Version
    as_of_us: int


Landing: TypeAlias = Found | CacheError | None
"""How a flight (one call of this process that looks, waits and loads for others) ended; None: without a result."""


class Port(Protocol):
    """The world, as one read or one write sees it."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch. Carries load, never correctness (I4)."""

    def nonce(self) -> Token:
        """A fresh random lease token, never 0."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""

    def note(self, event: str) -> None:
        """Count something that happened; the names are in `metrics.py`."""

    def abandon(self, name: Name, op: Op) -> None:
        """Execute `op` some time, without an answer: for a call that is being cancelled."""

    async def execute(self, name: Name, op: Op) -> Answer:
        """Apply `op` on the node that owns `name`. Raises `CacheUnavailable`."""

    async def load(self, key: Any) -> Loaded:
        """Ask the store. Raises `LoadFailed`, `StoreBudgetExceeded`, `DeadlineExceeded`."""

    async def join(self, name: Name, ms: int) -> Landing:
        """Wait for this process's flight for `name`; if there is none, take off, so that others may join this call.

        None: it took off, or waited for `ms`; or this is one key of a batch, which does neither. Raises
        `DeadlineExceeded`.
        """

    async def wait(self, name: Name, ms: int) -> None:
        """Let `ms` milliseconds pass, or less if this process's flight for `name` lands.

        Raises `DeadlineExceeded`.
        """

    def lead(self, name: Name) -> bool:
        """Whether others in the process may join this call while it waits for another's lease: it has taken off, or
        does now. False: another call has, or this is one key of a batch, whose looks wait for its other keys."""

    def take_off(self, name: Name) -> None:
        """This call now loads `name`: others in the process may join it, if they do not join another yet."""

    def land(self, name: Name, landing: Landing) -> None:
        """The flight that this call took off with has ended; it may have none."""
