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


def run(
    backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path, shared_first: bool = False
) -> list[Result]:
    """Each incident that this backend can have, one after the other; `shared_first`: those in a shared world before."""
    chosen = [one for one in incidents if backend in one.backends and not (short and one.needs_kafka)]
    alone, shared = [one for one in chosen if not one.shares], [one for one in chosen if one.shares]
    parts = [
        lambda: _alone(backend, alone, factor, short=short, folder=folder),
        lambda: _shared(backend, shared, factor, folder=folder),
    ]
    return [result for part in (reversed(parts) if shared_first else parts) for result in part()]


def _shared(backend: str, incidents: Sequence[Incident], factor: float, *, folder: Path) -> list[Result]:
    if not incidents:
        return []
    with Servers(backend, factor, ExitStack(), log="outbox") as servers:
        return _told(play_together(incidents, servers, folder / f"{backend}-shared"))


def _alone(backend: str, incidents: Sequence[Incident], factor: float, *, short: bool, folder: Path) -> list[Result]:
    if not incidents:
        return []
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
    """All backends at once, each in a process and on servers of its own: an incident mostly waits.

    One begins with what the other ends with: only one at a time has Kafka and its Connect to bear.
    """
    with ProcessPoolExecutor(len(backends), multiprocessing.get_context("spawn")) as pool:
        running = [
            pool.submit(run, one, incidents, factor, short=short, folder=folder, shared_first=number % 2 == 1)
            for number, one in enumerate(backends)
        ]
        return [result for one in running for result in one.result()]
