"""`python -m tests.gameday [--backend redis] [--only "store slow"] [--short]`, which is `make gameday`.

The last line is the verdict; the timelines are in build/gameday.md. GAMEDAY_FACTOR: how much faster than life (20).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.gameday.day import Incident, Result, play
from tests.gameday.incidents import ALL, SHORT
from tests.gameday.report import write
from tests.gameday.world import Servers

FACTOR = 20.0
REPORT = Path("build") / "gameday.md"


def run(backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path) -> list[Result]:
    """Each incident that this backend can have, one after the other."""
    results: list[Result] = []
    chosen = [one for one in incidents if backend in one.backends and not (short and one.needs_kafka)]
    with Servers(backend, factor, ExitStack(), log="outbox" if short else "connector") as servers:
        if not short:
            servers.warm_up(folder / f"{backend}-first")
        for number, incident in enumerate(chosen):
            began = time.monotonic()
            results.append(play(incident, servers, folder / f"{backend}-{number}"))
            one = results[-1]
            after = one.fired.get(incident.alert)
            fired = "did not fire" if after is None else f"fired after {after:.1f} s"
            print(
                f"{backend:9} {incident.name:36} {incident.alert} {fired}; {time.monotonic() - began:.0f} s"
                f" {'MISSED: ' + one.failed if one.failed else 'ended'}",
                flush=True,
            )
    return results


def side_by_side(
    backends: Sequence[str], incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path
) -> list[Result]:
    """All backends at once, each in a process and on servers of its own: an incident mostly waits."""
    with ProcessPoolExecutor(len(backends), multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run, one, incidents, factor, short=short, folder=folder) for one in backends]
        return [result for one in running for result in one.result()]


def main() -> int:
    """From the command line."""
    options = argparse.ArgumentParser(prog="gameday", description=__doc__)
    options.add_argument("--backend", choices=["redis", "memcached", "both"], default="both")
    options.add_argument("--only", action="append", help="an incident's name; may be given again")
    options.add_argument("--short", action="store_true", help="two incidents, without Kafka")
    options.add_argument("--report", type=Path, default=REPORT)
    given = options.parse_args()
    backends = ["redis", "memcached"] if given.backend == "both" else [given.backend]
    chosen = [one for one in (SHORT if given.short else ALL) if not given.only or one.name in given.only]
    factor = float(os.environ.get("GAMEDAY_FACTOR", FACTOR))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gameday-", ignore_cleanup_errors=True) as temporary:
        folder = Path(os.environ.get("GAMEDAY_FOLDER") or temporary)
        results = side_by_side(backends, chosen, factor, short=given.short, folder=folder)
    write(results, given.report, factor, time.monotonic() - began)
    missed = [one for one in results if one.failed]
    verdict = (
        f"{len(results) - len(missed)} of {len(results)} incidents: alert in time, others silent, ended by the runbook"
    )
    print(f"{'FAILED' if missed else 'OK'}: {verdict}; timelines in {given.report}")
    return 1 if missed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
