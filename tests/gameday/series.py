"""Series of incidents: all of a backend, one after the other; and several backends at once.

Not in `__main__.py`: what runs in a process of its own must be found in a module that it can import.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.gameday.day import Incident, Result, play, play_together
from tests.gameday.servers import Servers
from tests.gameday.world import warm_up


def run(backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path) -> list[Result]:
    """Each incident that this backend can have, one after the other."""
    chosen = [one for one in incidents if backend in one.backends and not (short and one.needs_kafka)]
    alone, shared = [one for one in chosen if not one.shares], [one for one in chosen if one.shares]
    results: list[Result] = []
    if alone:
        results += _alone(backend, alone, factor, short=short, folder=folder)
    if shared:
        with Servers(backend, factor, ExitStack(), log="outbox") as servers:
            results += _told(play_together(shared, servers, folder / f"{backend}-shared"))
    return results


def _alone(backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path) -> list[Result]:
    with Servers(backend, factor, ExitStack(), log="outbox" if short else "connector") as servers:
        if not short:
            warm_up(servers, folder / f"{backend}-first")
        places = (folder / f"{backend}-{number}" for number in range(len(incidents)))
        return _told(play(one, servers, place) for one, place in zip(incidents, places, strict=True))


def _told(played: Iterable[Result]) -> list[Result]:
    results, began = [], time.monotonic()
    for one in played:
        results.append(one)
        fired = ", ".join(
            f"{alert} {f'after {one.fired[alert]:.1f} s' if alert in one.fired else 'did not fire'}"
            for alert in one.incident.alerts
        )
        end = f"MISSED: {one.failed}" if one.failed else "ended"
        print(f"{one.backend:9} {one.incident.name:36} {fired}; {time.monotonic() - began:.0f} s {end}", flush=True)
        began = time.monotonic()
    return results


def side_by_side(
    backends: Sequence[str], incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path
) -> list[Result]:
    """All backends at once, each in a process and on servers of its own: an incident mostly waits."""
    with ProcessPoolExecutor(len(backends), multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run, one, incidents, factor, short=short, folder=folder) for one in backends]
        return [result for one in running for result in one.result()]
