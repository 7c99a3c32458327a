"""What a run is made of: the world that it plays in, and what begins in it when."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeAlias

from cachelib.entity import Entity
from cachelib.policy import Eventual, LeasePolicy, Strong, Ttl
from cachelib.testing.sim.node import Network
from cachelib.testing.sim.store import Weather
from cachelib.testing.sim.transaction import TABLE, load_lists, load_rows, remove_row, save_row, value_of_row

SECOND_US = 1_000_000

LevelName: TypeAlias = Literal["strong", "strong-or-store", "eventual"]
SourceName: TypeAlias = Literal["none", "outbox", "early", "bus"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The world of a run."""

    level: LevelName = "strong"
    write: Literal["through", "populate", "invalidate"] = "through"
    ttl: str = "1h"
    early: float = 0.0
    wait_max: str = "2s"
    hold: str = "300ms"
    cas: bool = False
    """The node is a memcached."""
    nodes: int = 1
    """Each client uses one of them; with several nothing strong is promised."""
    skews_us: tuple[int, ...] = (0, 0)
    """One client each, with so wrong a clock."""
    rows: int = 2
    groups: int = 1
    weather: Weather = field(default_factory=Weather)
    slow: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    source: SourceName = "none"
    """Where the invalidator reads, if there is one."""
    marks: int = 64
    """So many keys a session keeps; few, so that those it had to drop matter."""
    faults: frozenset[str] = frozenset()
    refresh: bool = False
    """The invalidator writes changes through."""

    def network(self) -> Network:
        """The network of the run."""
        return Network(slow=self.slow, lost=self.lost, late=self.late)

    def entities(self) -> tuple[Entity, Entity]:
        """Row keys, and keys of many rows."""
        versions, refresh = self.weather.versions, self.refresh and self.weather.versions
        return entities(self.level, self.write, self.ttl, self.early, self.wait_max, self.hold, versions, refresh)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that begins at a moment. `who` is a client by its number; faults use it as they like."""

    at_us: int
    kind: str
    who: int
    what: tuple[Any, ...]
    seed: int

    def told(self) -> str:
        """For a story."""
        return f"{self.kind} {' '.join(map(str, self.what))}".strip()


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, before it is run."""

    seed: int
    profile: Profile
    deeds: tuple[Deed, ...]

    def but(self, deeds: tuple[Deed, ...]) -> Plan:
        """The same with other deeds."""
        return replace(self, deeds=deeds)


@cache
def entities(
    level: str, write: Any, ttl: str, early: float, wait_max: str, hold: str, versions: bool, refresh: bool
) -> tuple[Entity, Entity]:
    """Entities are the same for all runs with these settings."""
    consistency = Eventual() if level == "eventual" else Strong("raise" if level == "strong" else "store")
    settings: dict[str, Any] = {
        "consistency": consistency,
        "ttl": ttl,
        "negative_ttl": ttl,
        "jitter": Ttl(early=early),
        "lease": LeasePolicy(hold=hold, wait="8ms", wait_max=wait_max),
    }
    version = "row_version" if versions else None
    row = Entity(
        "row:{id:int}", table=TABLE, key="id", version=version, load=load_rows, save=save_row, remove=remove_row,
        write=write, refresh=value_of_row if refresh else None, **settings,
    )  # fmt: skip
    return row, Entity("list:{grp:int}", depends_on={TABLE: "grp"}, load=load_lists, **settings)
