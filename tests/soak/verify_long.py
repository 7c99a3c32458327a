"""`make verify-long`: millions of strong reads over real servers, under faults; the last line is the verdict.

VERIFY_READS (15000000) checked reads in all, on both backends in turn, in rounds of VERIFY_SECONDS (120);
VERIFY_BACKEND for one of them, VERIFY_SEED. What is done is kept in `build/verify-long.json` after every round, and
another call goes on from there; it begins anew where the program is another one. Exit code 0: none was stale,
1: one was, 3: a round said nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cachelib import Cache
from cachelib.errors import CacheError
from cachelib.stores import SqlStore
from loadgen.servers import Invalidator
from tests.servers.postgresql import PostgresServer
from tests.servers.process import ServerFailed
from tests.soak import registers
from tests.soak.register_disasters import Disasters, Nodes
from tests.soak.register_faults import Crew, Faults
from tests.soak.registers import ENTITIES, ENTITY, KEYS, NAMESPACE, SCHEMA, Board, Place
from tests.soak.work import start

RESULT = Path("build/verify-long.json")
START_S = 180.0
SETTLE_S = 60.0
_ROOT = Path(__file__).parents[2]
_EVERY_S = (1.0, 6.0)
FAILED, INVALID = 1, 3


@dataclass
class Round:
    """What one round found."""

    backend: str
    seconds: float
    date: str
    reads: int = 0
    writes: int = 0
    refused: int = 0
    stale: int = 0
    settled: bool = False
    faults: dict[str, int] = field(default_factory=dict)
    invalid: str = ""
    examples: list[str] = field(default_factory=list)


def round_of(
    backend: str, seconds: float, seed: int, *, naive: bool = False, disasters: bool = False, **place: Any
) -> Round:
    """One round. `naive`: with a look-aside cache, and nothing is broken; it is stale all the same.

    `disasters`: the store and the nodes lose what was written, too.
    """
    found = Round(backend, seconds, time.strftime("%Y-%m-%d %H:%M"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verify-")))
        nodes = Nodes.of(backend, stack.enter_context)
        server = nodes.first
        postgres = stack.enter_context(PostgresServer())
        database = postgres.create_database("verify")
        url = postgres.url_of(database)
        where = Place(folder, url, server.url, naive=naive, **place)
        store = stack.enter_context(SqlStore(url))
        with postgres.connect(database) as connection:
            connection.execute(SCHEMA)
            connection.execute(f"insert into registers select g, 0 from generate_series(0, {KEYS - 1}) g")
        store.install("registers", key="id")
        daemon = Invalidator(folder, url, server.url, f"{registers.__name__}:ENTITIES", NAMESPACE)
        daemon.environment = {"PYTHONPATH": str(_ROOT)}
        daemon.start()
        stack.callback(daemon.kill)
        (folder / "go").touch()
        cache = stack.enter_context(Cache(server.url, store=store, entities=ENTITIES, namespace=NAMESPACE))
        crew = Crew(_starts(where, seed))
        stop = threading.Event()
        more = Disasters(where, postgres, store, nodes, stop, seed).kinds() if disasters else []
        faults = Faults(nodes, daemon, crew, cache, seed, _EVERY_S, stop, more)
        _wait_for_all(where)
        if not naive:
            faults.start()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not (found.stale or faults.failed):
            time.sleep(0.2)
            found.stale = int(where.board.stale.sum())
        faults.stop()
        (folder / "go").unlink()
        found.invalid = "; ".join([*crew.join(30), *([faults.failed] if faults.failed else [])])
        found.faults = dict(sorted(faults.counts.items()))
        _judge(found, where, cache, store)
    return found


def _wait_for_all(place: Place) -> None:
    """Until every process is at work."""
    board, until_s = place.board, time.monotonic() + START_S
    while not (board.reads[: place.readers].all() and board.writes[: place.writers].all()):
        if time.monotonic() > until_s:
            raise ServerFailed(f"readers and writers did not begin within {START_S:g} s")
        time.sleep(0.05)


def _starts(place: Place, seed: int) -> dict[str, Callable[[], BaseProcess]]:
    readers = {f"reader {n}": partial(start, registers.read, place, n, seed + n) for n in range(place.readers)}
    writers = {f"writer {n}": partial(start, registers.write, place, n, seed + n) for n in range(place.writers)}
    return readers | writers


def _judge(found: Round, place: Place, cache: Cache, store: SqlStore) -> None:
    board = place.board
    found.settled = _settles(cache, store, board, found)
    found.reads, found.writes = int(board.reads.sum()), int(board.writes.sum())
    found.refused, found.stale = int(board.refused.sum()), int(board.stale.sum())
    said = place.folder / "faults.txt"
    found.examples += said.read_text().splitlines() if said.exists() else []


def _settles(cache: Cache, store: SqlStore, board: Board, found: Round) -> bool:
    """In the end cache and store say the same of every key, and no acknowledged count is lost."""
    until_s = time.monotonic() + SETTLE_S
    while True:
        try:
            differing = _differing(cache, store, board)
        except CacheError as error:
            differing = [str(error)]
        if not differing or time.monotonic() > until_s:
            found.examples += differing[:3]
            return not differing
        time.sleep(0.2)


def _differing(cache: Cache, store: SqlStore, board: Board) -> list[str]:
    with store.transaction() as tx:
        rows = {row[0]: row[1] for row in tx.execute("select id, count from registers")}
    served = {key: row["count"] if row else None for key, row in cache.get_many(ENTITY, range(KEYS)).items()}
    other = [key for key in served if served[key] != rows.get(key)]
    said = [f"key {key}: {served[key]}, the store has {rows.get(key)}" for key in other]
    lost = [key for key, count in rows.items() if count < board.acknowledged[key]]
    return said + [f"key {key}: {rows[key]} is in the store, and more was acknowledged" for key in lost]


def _program() -> str:
    """What is checked: results of another program say nothing about this one."""
    told = subprocess.run(["git", "rev-parse", "HEAD:cachelib"], cwd=_ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def main() -> int:
    """From the environment."""
    wanted, seconds = int(os.environ.get("VERIFY_READS", "15000000")), float(os.environ.get("VERIFY_SECONDS", "120"))
    backends = [os.environ["VERIFY_BACKEND"]] if os.environ.get("VERIFY_BACKEND") else ["redis", "memcached"]
    seed = int(os.environ.get("VERIFY_SEED", "1"))
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    rounds: list[dict[str, Any]] = kept.get("rounds", []) if kept.get("program") == _program() else []
    while not rounds or sum(one["reads"] for one in rounds) < wanted:
        found = round_of(backends[len(rounds) % len(backends)], seconds, seed + 100 * len(rounds), disasters=True)
        rounds.append(asdict(found))
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"program": _program(), "rounds": rounds}, indent=1))
        did = f"{found.reads:,} reads, {found.stale} stale, {found.refused:,} refused, {found.writes:,} writes"
        print(f"{found.backend}: {did}, {found.faults}", flush=True)
        if found.stale or found.invalid or not found.settled:
            print("\n".join(found.examples), flush=True)
            break
    return _verdict(rounds)


def _verdict(rounds: list[dict[str, Any]]) -> int:
    reads = {name: sum(one["reads"] for one in rounds if one["backend"] == name) for name in ("redis", "memcached")}
    stale, total = sum(one["stale"] for one in rounds), sum(reads.values())
    faults = sum(sum(one["faults"].values()) for one in rounds)
    lost = [one for one in rounds if not one["settled"]]
    invalid = "; ".join(one["invalid"] for one in rounds if one["invalid"])
    figures = (
        f"{total:,} strong reads checked ({reads['redis']:,} on Redis, {reads['memcached']:,} on Memcached),"
        f" {stale} stale or wrong, so a share below {3 / max(1, total):.1e} (95 %);"
        f" {sum(one['writes'] for one in rounds):,} writes;"
        f" {faults} faults in {len(rounds)} rounds, settled in {len(rounds) - len(lost)}"
    )
    if stale or lost:
        print(f"FAILED: {figures}")
        return FAILED
    print(f"INVALID: {invalid}; {figures}" if invalid else f"PASSED: {figures}")
    return INVALID if invalid else 0


if __name__ == "__main__":
    sys.exit(main())
