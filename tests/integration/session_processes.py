"""Tokens of one writer's session, read in four other processes: two over Redis, two over a memcached that nobody tells.

    python -m tests.integration.session_processes --reads 1000000

No invalidator runs. Each token comes with what its session wrote; a reader goes on from it as a session of its own and
checks that no read is older than that, or than what it has read itself. An eventual reader beside it shows that there
is something to go wrong. The last line is the verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from cachelib import Cache, Entity
from cachelib.stores import SqlStore

KEYS = 120
WRITES = 3
ROUND = 250
"""Reads of each reader with one token."""
NUMBERS = Entity.from_table("numbers", key="id", ttl="1h")


def reader(store_url: str, cache_url: str, seed: int) -> None:
    """One reader process: a line in, a line out."""
    rng = random.Random(seed)
    with SqlStore(store_url) as store, Cache(cache_url, store=store) as cache:
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(_read_on(cache, rng, asked["token"], {int(k): n for k, n in asked["wrote"].items()})))
            sys.stdout.flush()


def _read_on(cache: Cache, rng: random.Random, token: str, least: dict[int, int]) -> dict[str, int]:
    session, old, hits, behind = cache.session(token), 0, 0, 0
    for turn in range(ROUND):
        key = rng.choice(list(least)) if turn % 4 == 0 else rng.randrange(KEYS)
        if turn % 50 == 49:
            session = cache.session(session.token)  # as in the next request
        plain = cache.get(NUMBERS, key)["n"] if turn % 10 == 0 else None
        read = session.read(NUMBERS, key)
        old += read.value["n"] < least.get(key, 0)
        behind += plain is not None and plain < least.get(key, 0)
        hits += read.source == "hit"
        least[key] = max(least.get(key, 0), read.value["n"])
    return {"reads": ROUND, "old": old, "hits": hits, "behind": behind}


class Readers:
    """The four processes."""

    def __init__(self, store_url: str, caches: list[str], errors: TextIO) -> None:
        self._all = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--reader", store_url, url, str(seed)],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for seed, url in enumerate(caches)
        ]

    def read(self, token: str, wrote: dict[int, int]) -> dict[str, int]:
        """All of them read on from this token."""
        line = json.dumps({"token": token, "wrote": wrote}) + "\n"
        for process in self._all:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        total: dict[str, int] = {}
        for process in self._all:
            assert process.stdout is not None
            for what, number in json.loads(process.stdout.readline()).items():
                total[what] = total.get(what, 0) + number
        return total

    def close(self) -> None:
        """No more tokens: they end."""
        for process in self._all:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


def run(store_url: str, redis_url: str, memcached_url: str, reads: int, errors: TextIO) -> dict[str, int]:
    """Write and have it read until so many reads are checked; the counts."""
    with SqlStore(store_url) as store:
        with store.transaction() as tx:
            tx.execute("create table numbers (id integer primary key, n integer)")
            for key in range(KEYS):
                tx.execute("insert into numbers values (:id, 0)", {"id": key})
        store.install("numbers", key="id")
        rng, total, n = random.Random(9), {"reads": 0, "old": 0, "hits": 0, "behind": 0}, 0
        with Cache(redis_url, store=store, entities=[NUMBERS]) as cache:
            readers = Readers(store_url, [redis_url, redis_url, memcached_url, memcached_url], errors)
            try:
                while total["reads"] < reads:
                    writer, wrote = cache.session(), {}
                    for _ in range(WRITES):
                        key, n = rng.randrange(KEYS), n + 1
                        with writer.transaction() as tx:
                            tx.execute("update numbers set n = :n where id = :id", n=n, id=key)
                        wrote[key] = n
                    found: dict[str, Any] = readers.read(writer.token, wrote)
                    total = {what: total[what] + found[what] for what in total}
            finally:
                readers.close()
    return total


def verdict(total: dict[str, int]) -> str:
    """In one line, with the bound that so many reads without a violation give."""
    share = total["hits"] / total["reads"]
    bound = f"under {3 / total['reads']:.1e} at 95 %" if not total["old"] else ""
    return (
        f"{'FAILED' if total['old'] else 'ok'}: {total['reads']} session reads in 4 processes, {total['old']} too old"
        f" ({bound}), {share:.1%} hits; {total['behind']} of {total['reads'] // 10} eventual reads beside them were"
    )


def main() -> int:
    """The whole run over servers of its own."""
    from tests.servers.memcached import MemcachedServer
    from tests.servers.redis import RedisServer

    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--reader", nargs=3, metavar=("STORE", "CACHE", "SEED"))
    given = parser.parse_args()
    if given.reader:
        reader(given.reader[0], given.reader[1], int(given.reader[2]))
        return 0
    began = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        redis, memcached = stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())
        total = run(f"sqlite:///{folder}/store.db", redis.url, memcached.url, given.reads, sys.stderr)
    print(f"{time.monotonic() - began:.0f} s")
    print(verdict(total))
    return 1 if total["old"] else 0


if __name__ == "__main__":
    sys.exit(main())
