"""Durations, levels of consistency and policies: frozen, and checked when they are built.

A duration is a number of seconds, a `timedelta`, or text: "250ms" "5s" "10m" "1h" "7d".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Literal, TypeAlias

from cachelib.errors import ConfigError

Duration: TypeAlias = str | int | float | timedelta

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
LIFE_MS_MAX = 400 * _UNIT_MS["d"]
"""Nothing lives longer: every item's life is finite."""


def duration_ms(setting: str, value: Duration, *, least_ms: int = 0, most_ms: int = LIFE_MS_MAX) -> int:
    """Whole milliseconds in a duration. Raises `ConfigError` that names `setting`."""
    if isinstance(value, timedelta):
        ms = value.total_seconds() * 1000
    elif isinstance(value, bool):
        raise ConfigError(f"{setting} is {value!r}: give a duration such as '5s'")
    elif isinstance(value, int | float):
        ms = value * 1000
    else:
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            raise ConfigError(f"{setting} is {value!r}: give a duration such as '250ms', '5s', '10m', '1h' or '7d'")
        ms = float(match[1]) * _UNIT_MS[match[2]]
    if not least_ms <= ms <= most_ms:
        raise ConfigError(f"{setting} is {value!r}: it must be between {least_ms} ms and {most_ms} ms")
    return int(ms)


def share(setting: str, value: str | float) -> float:
    """A number in [0, 1], given as such or as "10%". Raises `ConfigError` that names `setting`."""
    try:
        number = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
    except (ValueError, TypeError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ConfigError(f"{setting} is {value!r}: give a share such as 0.1 or '10%'")
    return number


def refuse_unknown(what: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ConfigError` for the first unknown setting and name the nearest known one."""
    for name in unknown:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
        raise ConfigError(f"{what} has no setting {name!r}: {hint}")


def one_of(setting: str, value: str, allowed: Iterable[str]) -> None:
    """Raise `ConfigError` if `value` is none of `allowed`."""
    if value not in (names := tuple(allowed)):
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{setting} is {value!r}: it takes {', '.join(map(repr, names))}{hint}")


# --- levels ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Eventual:
    """A hit may be behind the store until the change event is applied; never for ever."""


@dataclass(frozen=True, slots=True)
class Strong:
    """Linearizable per key, for writes through the library. Declared on the entity.

    `unavailable`: what a read does while the cache node cannot be reached. "store" asks the
    store (two readers may then see a write that is not yet acknowledged in either order);
    "raise" raises `CacheUnavailable`.
    """

    unavailable: Literal["store", "raise"] = "store"

    def __post_init__(self) -> None:
        one_of("Strong.unavailable", self.unavailable, ("store", "raise"))


@dataclass(frozen=True, slots=True)
class Bounded:
    """A hit is shown only with a proof that it is no older than `max_age` when the read begins; else it is loaded.

    What proves it: when it was loaded, or the watermark that the invalidator keeps on the node. All writes count, also
    those past the library.
    """

    max_age: Duration

    def __post_init__(self) -> None:
        duration_ms("Bounded.max_age", self.max_age, least_ms=1)

    @property
    def max_age_us(self) -> int:
        """In microseconds."""
        return duration_ms("Bounded.max_age", self.max_age) * 1000


Level: TypeAlias = Eventual | Bounded | Strong
WriteMode: TypeAlias = Literal["through", "populate", "invalidate"]

# --- policies --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How one reader fills while the others wait.

    `hold`: a lease lasts so long; above the slowest usual load. `wait`: the longest pause
    between two looks of a waiter. `wait_max`: after so long a waiter asks the store itself; it
    should be above `hold`, or a holder that died becomes a herd.
    """

    hold: Duration = "3s"
    wait: Duration = "30ms"
    wait_max: Duration = "5s"

    def __post_init__(self) -> None:
        duration_ms("LeasePolicy.hold", self.hold, least_ms=50, most_ms=60_000)
        duration_ms("LeasePolicy.wait", self.wait, least_ms=1, most_ms=60_000)
        duration_ms("LeasePolicy.wait_max", self.wait_max, most_ms=600_000)


@dataclass(frozen=True, slots=True)
class Ttl:
    """How lives are spread. `jitter`: up to this share is cut off a life, at random. `early`: in
    the last share of a life one reader refreshes it while the others still hit; 0 for never."""

    jitter: float | str = 0.1
    early: float | str = 0.1

    def __post_init__(self) -> None:
        share("Ttl.jitter", self.jitter)
        share("Ttl.early", self.early)


@dataclass(frozen=True, slots=True)
class OnFailure:
    """What happens when the cache cannot be reached.

    `read`: "store" asks the store, within the store budget; "raise" raises `CacheUnavailable`.
    `write`: "log" returns a write that is not confirmed (the change log will tell the cache);
    "confirm" raises `Unconfirmed`, as `Strong` entities always do.
    """

    read: Literal["store", "raise"] = "store"
    write: Literal["log", "confirm"] = "log"

    def __post_init__(self) -> None:
        one_of("OnFailure.read", self.read, ("store", "raise"))
        one_of("OnFailure.write", self.write, ("log", "confirm"))


@dataclass(frozen=True, slots=True)
class StoreBudget:
    """How many loads of the store misses may cause: `at_once`, and `per_s` (None: no limit).

    A load that finds the budget spent waits up to `wait`, then raises `StoreBudgetExceeded`
    (or a stale value is served where the policy allows it). Leases pace one key; this paces
    the cache as a whole (I10).
    """

    at_once: int = 64
    per_s: float | None = None
    wait: Duration = "1s"

    def __post_init__(self) -> None:
        if type(self.at_once) is not int or self.at_once < 1:
            raise ConfigError(f"StoreBudget.at_once is {self.at_once!r}: it takes a whole number of at least 1")
        if self.per_s is not None and not (type(self.per_s) in (int, float) and 0 < self.per_s < float("inf")):
            raise ConfigError(f"StoreBudget.per_s is {self.per_s!r}: it takes a number above 0, or None for no limit")
        duration_ms("StoreBudget.wait", self.wait, most_ms=600_000)


@dataclass(frozen=True, slots=True)
class L1:
    """Decoded values kept in the process for a moment, for `eventual` reads; see `cachelib.l1`.

    `ttl`: how much further behind than the cache such a read may be. `entries_max` and `bytes_max`
    bound all of them together; bytes are counted as encoded (decoded, plain dicts take 3 to 5 times
    as much). Callers get the same object: they must not change it.
    """

    ttl: Duration = "1s"
    entries_max: int = 10_000
    bytes_max: int = 16 << 20

    def __post_init__(self) -> None:
        duration_ms("L1.ttl", self.ttl, least_ms=1, most_ms=60_000)
        for name in ("entries_max", "bytes_max"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"L1.{name} is {value!r}: it takes a whole number of at least 1")


@dataclass(frozen=True, slots=True)
class Compare:
    """Which share of hits is held against the store afterwards (`cachelib.comparing`), and what that may cost.

    `per_s`: so many of them a second, at most. `later`: how long an item must still be served after the store has
    shown something else, to count as a mismatch: longer than the invalidator usually takes.
    """

    share: float = 1e-4
    per_s: float = 10.0
    later: Duration = "1s"

    def __post_init__(self) -> None:
        if type(self.share) not in (int, float) or not 0 <= self.share <= 1:
            raise ConfigError(f"Compare.share is {self.share!r}: it takes a number from 0 to 1, such as 1e-4")
        if type(self.per_s) not in (int, float) or not 0 < self.per_s < float("inf"):
            raise ConfigError(f"Compare.per_s is {self.per_s!r}: it takes a number above 0")
        duration_ms("Compare.later", self.later, least_ms=1, most_ms=600_000)


# --- the same, in milliseconds, as the steps take it ------------------------------------------


class Mode(Enum):
    """What a read may do with the cache: all, serve hits but store nothing, or nothing at all."""

    ON = "on"
    NO_FILL = "no_fill"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Pace:
    """How leases are held and waited for, milliseconds."""

    hold_ms: int
    wait_ms: int
    """The longest pause between two looks."""
    wait_ms_max: int
    """How long a reader waits for another's lease in all before it asks the store itself."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long things live, milliseconds."""

    ttl_ms: int
    negative_ttl_ms: int
    stale_ttl_ms: int
    jitter: float
    early: float
    """The last share of the life in which one reader refreshes early; 0 for never."""

    def of(self, absent: bool, chance: Callable[[], float]) -> tuple[int, int]:
        """Hard and soft life of new content: jittered, so that what is written together does not expire together.

        `chance` answers numbers in [0, 1). A soft life of 0: nobody refreshes it early.
        """
        whole = self.negative_ttl_ms if absent else self.ttl_ms
        ttl_ms = max(1, int(whole * (1 - self.jitter * chance())))
        if absent or not self.early:
            return ttl_ms, 0
        # Spread, so that the keys of one batch are not all refreshed in one moment either.
        return ttl_ms, max(1, int(ttl_ms * (1 - self.early * (0.5 + 0.5 * chance()))))
