"""Series of incidents: all of a backend, one after the other; and several backends at once.

Not in `__main__.py`: what runs in a process of its own must be found in a module that it can import.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.gameday.day import Incident, Result, play
from tests.gameday.servers import Servers
from tests.gameday.world import warm_up


def run(backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path) -> list[Result]:
    """Each incident that this backend can have, one after the other."""
    results: list[Result] = []
    chosen = [one for one in incidents if backend in one.backends and not (short and one.needs_kafka)]
    with Servers(backend, factor, ExitStack(), log="outbox" if short else "connector") as servers:
        if not short:
            warm_up(servers, folder / f"{backend}-first")
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
