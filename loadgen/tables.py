"""What load is put on: two tables each time, one also written behind the library, one never.

The invalidator is told of the same entities: `--entities loadgen.tables:AIRPORTS`.

Every row carries `writer` and `seq`, together the *stamp* of the write that made it. So a value
says by itself which write it came from, and the checker can tell a value from its version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachelib import Bounded, Entity, Strong
from loadgen.database import Database
from loadgen.levels import Level

STAMPS = "writer integer not null default 0, seq integer not null default 0"


@dataclass(frozen=True, slots=True)
class Subject:
    """One table under load, and the entity that caches it."""

    entity: Entity
    table: str
    key: str
    """Its key column."""
    create: str
    change: str
    """What a write sets beside the stamp."""
    behind: bool
    """It is also written by plain SQL that the library never sees."""
    filled: tuple[str, ...] = ()
    """Columns that an insert gives values of its own."""
    session: bool = False
    """Each thread reads and writes it by a session of its own."""

    @property
    def strong(self) -> bool:
        """Its reads promise every write that the library has acknowledged."""
        return self.entity.strong

    @property
    def level(self) -> Level:
        """At which it is read."""
        if self.entity.strong:
            return Level.STRONG
        if isinstance(self.entity.consistency, Bounded):
            return Level.BOUNDED
        return Level.SESSION if self.session else Level.EVENTUAL


@dataclass(frozen=True, slots=True)
class Dataset:
    """Subjects that are read and written together. `entities` is how another process imports their entities."""

    name: str
    entities: str
    subjects: tuple[Subject, ...]


# --- airports: the demonstration ---------------------------------------------------------------

_AIRPORT_COLUMNS = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz")
_airports = Subject(
    Entity.from_table("airports", key="icao", ttl="1h"),
    table="airports",
    key="icao",
    create="create table airports (icao text primary key, iata text, name text, city text, subd text, country text,"
    f" elevation real default 0, lat real, lon real, tz text, {STAMPS})",
    change="elevation = elevation + 1",
    behind=True,
)
_flights = Subject(
    Entity.from_table("flights", key="flight", ttl="1h", consistency=Strong()),
    table="flights",
    key="flight",
    create=f"create table flights (flight text primary key, origin text, seats integer default 180, {STAMPS})",
    change="seats = case when seats > 0 then seats - 1 else 180 end",
    behind=False,
)
AIRPORTS = [_airports.entity, _flights.entity]

# --- plain rows: `run` and `faults` --------------------------------------------------------------

_rows = Subject(
    Entity.from_table("loadgen_rows", key="name", ttl="1h"),
    table="loadgen_rows",
    key="name",
    create=f"create table loadgen_rows (name text primary key, payload text default '', {STAMPS})",
    change="payload = payload",
    behind=True,
)
_strong_rows = Subject(
    Entity.from_table("loadgen_strong_rows", key="name", ttl="1h", consistency=Strong()),
    table="loadgen_strong_rows",
    key="name",
    create=f"create table loadgen_strong_rows (name text primary key, payload text default '', {STAMPS})",
    change="payload = payload",
    behind=False,
)
ROWS = [_rows.entity, _strong_rows.entity]

DATASETS = {
    one.name: one
    for one in (
        Dataset("airports", "loadgen.tables:AIRPORTS", (_airports, _flights)),
        Dataset("rows", "loadgen.tables:ROWS", (_rows, _strong_rows)),
    )
}

# --- filling -------------------------------------------------------------------------------------

PHANTOM_EVERY = 50
"""Of plain rows each fiftieth does not exist at first: absence is read, cached and ended by an insert."""
FLIGHTS = 600


def fill_airports(database: Database) -> list[list[str]]:
    """Create and fill; the keys of each subject."""
    import airportsdata

    airports: Mapping[str, Mapping[str, Any]] = airportsdata.load("ICAO")
    found = sorted(airports.items())
    database.execute(_airports.create)
    marks = ", ".join(f":{column}" for column in _AIRPORT_COLUMNS)
    database.insert(
        f"insert into airports ({', '.join(_AIRPORT_COLUMNS)}) values ({marks})",
        ({column: row[column] for column in _AIRPORT_COLUMNS} for _, row in found),
    )
    flights = [f"LC{number:04d}" for number in range(FLIGHTS)]
    database.execute(_flights.create)
    database.insert(
        "insert into flights (flight, origin) values (:flight, :origin)",
        ({"flight": flight, "origin": found[number * 7 % len(found)][0]} for number, flight in enumerate(flights)),
    )
    return [[icao for icao, _ in found], flights]


def fill_rows(database: Database, keys: int, payload_bytes: int) -> list[list[str]]:
    """Create and fill; the keys of each subject, those that do not exist at first included."""
    every: list[list[str]] = []
    for subject in DATASETS["rows"].subjects:
        names = [f"{subject.table[8:]}-{number:06d}" for number in range(keys)]
        database.execute(subject.create)
        statement = f"insert into {subject.table} (name, payload) values (:name, :payload)"
        database.insert(statement, _plain(names, "x" * payload_bytes))
        every.append(names)
    return every


def _plain(names: Sequence[str], payload: str) -> Iterator[dict[str, str]]:
    return (
        {"name": name, "payload": payload}
        for number, name in enumerate(names)
        if number % PHANTOM_EVERY != PHANTOM_EVERY - 1
    )
