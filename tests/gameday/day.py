"""One incident, from the first alert to its end, told as a timeline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.gameday.book import Page, filled_in, in_own_shell
from tests.gameday.servers import Servers
from tests.gameday.watch import Line, Watch
from tests.gameday.world import World
from tests.servers.process import ServerFailed

CALM_S = 4.0
AFTER_S = 3.0
BUSY_S = 15.0
"""What a busy machine may add to a time, in real seconds: it is not divided by the factor."""
LOOK_S = 60.0
"""Of the time that an alert is stated to take: a scrape of 15 s and an evaluation of 30 s, and the first of both."""
END_S = 300.0
SAID_MAX = 700


class Missed(AssertionError):
    """The game day did not go as it must."""


@dataclass
class Incident:
    """`alert` must fire within `stated_s` (of an unhurried world) and `LOOK_S`; of others, only those in `may`.

    `may`: what follows from the same cause, each with its reason; silent is also right.
    """

    name: str
    story: str
    alert: str
    stated_s: float
    breaks: Callable[[Day], None]
    mends: Callable[[Day], None]
    over: str
    """An expression that has a value only while what the page says under "It is over when" is so."""
    may: dict[str, str] = field(default_factory=dict)
    needs_kafka: bool = False
    backends: tuple[str, ...] = ("redis", "memcached")
    pending_max: int = 1000


@dataclass
class Result:
    """What the report is made of."""

    incident: Incident
    backend: str
    factor: float
    lines: list[Line]
    fired: dict[str, float]
    over_s: float | None
    failed: str = ""


class Day:
    """What an incident's functions work with."""

    def __init__(self, world: World, watch: Watch, incident: Incident) -> None:
        self.world, self.watch, self.incident = world, watch, incident
        self.servers = world.servers
        self.page = Page(incident.alert)

    def happened(self, what: str) -> None:
        """In the world."""
        self.watch.note("world", what)

    def person(self, what: str) -> None:
        """Somebody does what no command of ours does: starts a broker, ends a session."""
        self.watch.note("person", what)

    def run(self, command: str, *, wanted: str | None = "") -> str:
        """A command of the runbook, as it is written, where it says that it is typed. `wanted`: what its answer must
        show (a pattern); None where it may fail. What it said."""
        cluster = self.world.cluster
        ran = cluster.own_shell(command) if in_own_shell(command) else cluster.pod_shell(command)
        said = (ran.stdout + ran.stderr).strip()
        self.watch.note("runbook", command, said[:SAID_MAX])
        if wanted is not None and (ran.returncode or not re.search(wanted, said)):
            raise Missed(f"{command!r} of the runbook ended with {ran.returncode}, {wanted!r} not in:\n{said}")
        return said

    def first(self, shows: dict[str, str | None] | None = None) -> None:
        """The page's first commands; `shows`: begin of a command to what its answer must show."""
        for command in self.page.first():
            wanted = next((show for part, show in (shows or {}).items() if command.startswith(part)), "")
            self.run(filled_in(command), wanted=wanted)

    def act(self, part: str, wanted: str | None = "") -> str:
        """An action of the page, by how its command begins."""
        return self.run(self.page.action(part), wanted=wanted)

    def until(self, true: Callable[[], object], what: str, wait_s: float = 60.0) -> None:
        """Wait for something; `Missed` where it does not come."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            try:
                if true():
                    return
            except (OSError, ServerFailed):
                pass  # not yet
            time.sleep(0.2)
        raise Missed(f"it never came to it that {what}")


def play(incident: Incident, servers: Servers, folder: Path) -> Result:
    """One incident in a world of its own."""
    folder.mkdir(parents=True)
    with World(servers, folder, pending_max=incident.pending_max) as world, Watch(world.prometheus) as watch:
        day = Day(world, watch, incident)
        over_s, failed = None, ""
        try:
            time.sleep(CALM_S)
            watch.begin()
            incident.breaks(day)
            _fires(day)
            incident.mends(day)
            over_s = _ends(day)
            _others(day)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the report
            failed = f"{type(error).__name__}: {error}"
            watch.note("world", "MISSED", failed[:SAID_MAX])
        return Result(incident, servers.backend, servers.factor, watch.lines, watch.fired, over_s, failed)


def _fires(day: Day) -> None:
    incident = day.incident
    within_s = (incident.stated_s + LOOK_S) / day.world.factor + BUSY_S
    day.until(lambda: incident.alert in day.watch.fired, f"{incident.alert} fires within {within_s:.0f} s", within_s)


def _ends(day: Day) -> float:
    """The page's own words come true, the alert ends, and nothing stale is left."""
    over = day.incident.over
    day.until(lambda: day.world.prometheus.query(over), f"it is over: {over}", END_S)
    day.happened(f"over, by the page's words: {over}")
    over_s = day.watch.now()
    day.world.agrees()
    day.happened("every row that is cached is as in the store")
    day.until(lambda: day.incident.alert not in day.watch.states, f"{day.incident.alert} ends", END_S)
    time.sleep(AFTER_S)
    # What waits is given its time: it may fire still, and would be one too many.
    day.until(lambda: not day.watch.states.keys() - day.incident.may.keys(), "no other alert waits", END_S)
    return over_s


def _others(day: Day) -> None:
    wrong = day.watch.fired.keys() - {day.incident.alert} - day.incident.may.keys()
    if wrong:
        raise Missed(f"fired as well, and should not have: {', '.join(sorted(wrong))}")
