"""Strong reads as what they promise to be: each key a register with one writer, judged while it is read.

A key's writer counts up. What it has begun and what was acknowledged to it stands in memory that all processes share;
so does, for each reader, the highest count that it was ever shown. A read that began after a count was acknowledged,
or after anybody was shown it, and shows a lower one, breaks linearizability; one that shows a count which nobody has
begun, or another key's row, is wrong. For counts that only rise, of one writer in order, that is all there is to
check: so millions of reads need no history.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachelib import Cache, Entity, Strong
from cachelib.errors import CacheError, CommitUnknown, StoreError, Unconfirmed
from cachelib.stores import SqlStore
from tests.soak.look_aside import LookAside

KEYS = 400
NAMESPACE = "registers"
READERS_MAX = 8
SCHEMA = "create table registers (id int primary key, count bigint not null)"
ENTITY = Entity.from_table("registers", key="id", consistency=Strong(unavailable="raise"), ttl="10s", negative_ttl="5s")
ENTITIES = [ENTITY]
_GONE = 0.02
_INVALIDATE = 0.002
_EXAMPLES = 5
_ALONE = 20
_TOGETHER = 120

Numbers = npt.NDArray[np.int64]


class Board:
    """A file in memory, by which processes tell each other; what a killed one has told stays."""

    def __init__(self, path: Path) -> None:
        fields = 5 + READERS_MAX
        size = (fields * KEYS + 7 * READERS_MAX) * 8
        if not path.exists():
            path.write_bytes(bytes(size))
        words = np.memmap(path, dtype=np.int64, mode="r+")
        table = words[: fields * KEYS].reshape(fields, KEYS)
        self.begun: Numbers = table[0]
        """The count that is being written, or was."""
        self.acknowledged: Numbers = table[1]
        self.gone_begun: Numbers = table[2]
        """The count of the last delete that was begun: a delete counts, too."""
        self.lost_above: Numbers = table[3]
        self.lost_upto: Numbers = table[4]
        """Counts above the one and up to the other are what a store has lost that went back."""
        self.shown: Numbers = table[5:]
        """By reader, the highest count it was shown."""
        tallies = words[fields * KEYS :].reshape(7, READERS_MAX)
        self.reads, self.stale, self.wrong, self.refused, self.writes, self.busy, self.phase = tallies
        # `busy`: by writer, it is in the middle of something. `phase`, of which only the first counts: while it is odd
        # nobody writes and no read is judged.


def check(board: Board, key: int, row: Any, least: int) -> str:
    """What is wrong with an answer; "" for nothing. `least`: what it has to show, known before the read began."""
    if row is None:
        return "" if least <= board.gone_begun[key] else f"no row, and count {least} was acknowledged or shown before"
    if row["id"] != key:
        return f"the row of key {row['id']}"
    if row["count"] > board.begun[key]:
        return f"count {row['count']}, which nobody has begun to write"
    if board.lost_above[key] < row["count"] <= board.lost_upto[key]:
        return f"count {row['count']}, which the store lost when it went back"
    if row["count"] < least:
        return f"count {row['count']}, and {least} was acknowledged or shown before"
    return ""


class Stop:
    """Says when to end: the file is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __bool__(self) -> bool:
        return not self._path.exists()


@dataclass(frozen=True)
class Place:
    """Where a round is; `naive`: with the look-aside cache that must be found out. `keys`: so many are used."""

    folder: Path
    store_url: str
    cache_url: str
    keys: int = KEYS
    naive: bool = False
    readers: int = 3
    writers: int = 2
    writes_per_s: float = 50.0
    """Of each writer."""

    @property
    def board(self) -> Board:
        """What its processes tell each other."""
        return Board(self.folder / "board")

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The cache."""
        with SqlStore(self.store_url) as store:
            made = LookAside if self.naive else Cache
            with made(self.cache_url, store=store, entities=ENTITIES, namespace=NAMESPACE) as cache:
                yield cache


def read(place: Place, number: int, seed: int) -> None:
    """A reader, as fast as it can; what it finds wrong goes to a file."""
    board, stop = place.board, Stop(place.folder / "go")
    asked = _popular(place.keys, seed)
    with place.open() as cache:
        while not stop:
            keys = next(asked)
            phase = int(board.phase[0])
            least = np.maximum(board.acknowledged[keys], board.shown[:, keys].max(axis=0))
            try:
                rows = cache.get_many(ENTITY, keys) if len(keys) > 1 else {keys[0]: cache.get(ENTITY, keys[0])}
            except CacheError:
                board.refused[number] += 1
                time.sleep(0.01)  # servers are killed all the time: as an application would wait
                continue
            if phase % 2 or board.phase[0] != phase:
                continue  # the store went back meanwhile: see `register_disasters.py`
            for key, bound in zip(keys, least.tolist(), strict=True):
                _judge(place, board, number, key, rows.get(key), bound)


def _judge(place: Place, board: Board, number: int, key: int, row: Any, least: int) -> None:
    """Count one answer of a reader, and tell the others what it was shown."""
    board.reads[number] += 1
    fault = check(board, key, row, least)
    if fault:
        board.stale[number] += 1
        _report(place.folder, f"reader {number}, key {key}: {fault}")
    elif row is not None and row["count"] > board.shown[number, key]:
        board.shown[number, key] = row["count"]


def _popular(keys: int, seed: int) -> Iterator[list[int]]:
    """What to read at once, a few keys most of the time: one, and after so many of these a batch."""
    chance = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, keys + 1) ** 0.9
    while True:
        chunk = chance.choice(keys, _ALONE + _TOGETHER, p=weights / weights.sum()).tolist()
        yield from ([key] for key in chunk[:_ALONE])
        yield list(set(chunk[_ALONE:]))


def _report(folder: Path, line: str) -> None:
    file = folder / "faults.txt"
    if not file.exists() or len(file.read_text().splitlines()) < _EXAMPLES:
        with file.open("a") as log:
            log.write(line + "\n")


def write(place: Place, number: int, seed: int) -> None:
    """The writer of every key whose number leaves this rest; also of those that one before it was killed at."""
    board, stop = place.board, Stop(place.folder / "go")
    chance = random.Random(seed)
    own = range(number, place.keys, place.writers)
    with place.open() as cache:
        while not stop:
            board.busy[number] = 1
            if board.phase[0] % 2:
                board.busy[number] = 0
                time.sleep(0.02)
                continue
            key = chance.choice(own)
            if chance.random() < _INVALIDATE:
                _invalidate(cache, key)
            try:
                write_once(board, cache, key, gone=chance.random() < _GONE)
            except (Unconfirmed, CommitUnknown, StoreError):
                board.refused[number] += 1  # whether it was committed is not known; what is next counts above it
                time.sleep(0.02)
            else:
                board.writes[number] += 1
            board.busy[number] = 0
            time.sleep(chance.expovariate(place.writes_per_s))


def write_once(board: Board, cache: Any, key: int, *, gone: bool) -> None:
    """One count up. Raises what the library does; then the count was begun, and is promised to nobody."""
    count = int(board.begun[key]) + 1
    if gone:
        board.gone_begun[key] = count
    board.begun[key] = count
    named = {"id": key, "count": count}
    with cache.transaction() as tx:
        if gone:
            tx.execute("delete from registers where id = :id", named)
        elif not tx.execute("update registers set count = :count where id = :id", named).rowcount:
            tx.execute("insert into registers (id, count) values (:id, :count)", named)
    board.acknowledged[key] = count


def _invalidate(cache: Any, key: int) -> None:
    """As if it were evicted, so that loads race with writes also where everything is a hit."""
    try:
        cache.invalidate(ENTITY, key)
    except CacheError:
        pass  # the cache is away: then everything is
