"""`python -m tests.verifier`: is the verifier to be believed? `make verifier`.

First a shop without a bug, until VERIFIER_CHECKS (1 000 000) answers were judged: one alarm that lateness does not
explain is a failure. Then one with each bug of `bugs.py`, until it was found on Redis and on Memcached, for at most
VERIFIER_SECONDS (300). Prints a table; the last line is the verdict. Real servers, real daemon, real verifier.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer
from tests.verifier.bugs import BUGS
from tests.verifier.street import street, until_found

STUCK_S = 120.0
_SAY_S = 15.0


def correct(caches: list[str], checks: int) -> bool:
    """No false alarm in so many checks."""
    began_s = said_s = heard_s = time.monotonic()
    last = 0
    with tempfile.TemporaryDirectory(prefix="verifier-") as folder, street(Path(folder), caches) as shop:
        while (status := shop.status())["checks"] < checks:
            now_s = time.monotonic()
            heard_s, last = (now_s, status["checks"]) if status["checks"] > last else (heard_s, last)
            if status["alarms"] or now_s - heard_s > STUCK_S:
                break
            if now_s - said_s > _SAY_S:
                said_s = now_s
                print(f"{now_s - began_s:6.0f} s  {status['checks']:,} checks, {status['stale']} lag", flush=True)
            time.sleep(0.5)
        took_s = time.monotonic() - began_s
        print(f"a correct shop: {status['checks']:,} checks in {took_s:.0f} s, {status['alarms']} alarms;")
        print(f"  the store was asked for {status['store_loads']:,} keys, {status['stale']} answers were merely late")
        for row in status["ages"]:
            print("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
        for name in ("first", "last"):
            if status["alarms"] and status[name]:
                print(f"  {name}: {status[name]}")
        return bool(status["checks"] >= checks and not status["alarms"])


def seeded(caches: list[str], bug: str, seconds: float) -> bool:
    """Whether the bug is found on each node; a line of the table."""
    with tempfile.TemporaryDirectory(prefix="verifier-") as folder, street(Path(folder), caches, bug) as shop:
        found, checks = until_found(shop, len(caches), seconds)
    said = [f"{found[node][0]:6.1f} s {found[node][1]:<6}" if node in found else "  not found  " for node in caches]
    print(f"{bug:32}  {'  '.join(said)}  {checks:>9,} checks", flush=True)
    return len(found) == len(caches)


def main() -> int:
    """From the environment."""
    checks = int(os.environ.get("VERIFIER_CHECKS", "1000000"))
    seconds = float(os.environ.get("VERIFIER_SECONDS", "300"))
    chosen = [bug for bug in BUGS if not sys.argv[1:] or bug in sys.argv[1:]]
    with RedisServer() as redis, MemcachedServer() as memcached:
        caches = [redis.url, memcached.url]
        fine = not checks or correct(caches, checks)
        print(f"{'dropped rule':32}  {'Redis':15}  {'Memcached':15}")
        missed = []
        for bug in chosen:
            redis.flush()
            memcached.flush()
            if not seeded(caches, bug, seconds):
                missed.append(bug)
    verdict = f"{len(chosen) - len(missed)} of {len(chosen)} bugs found; false alarms: {'none' if fine else 'SOME'}"
    print(f"{'PASSED' if fine and not missed else 'FAILED'}: {verdict}")
    return 0 if fine and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
