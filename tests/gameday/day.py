"""One incident, from the first alert to its end, told as a timeline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gameday.book import Page, filled_in, in_own_shell
from tests.gameday.factor import factor_of
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
LONGER = 10
"""How much quicker still the alerts that look at hours are, in a world of many incidents; and what goes with that: a
range of five minutes must hold two scrapes."""
OFTEN = "500ms"
CALM_LOAD = {"read_rate": 90, "write_rate": 2, "sql_rate": 2}
"""So few writes that the staleness objective, which wants a number of batches, is only asked where an incident says."""


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
    also: tuple[str, ...] = ()
    """Alerts of the same cause that must fire as well, each within its time; the person follows their pages, too."""
    needs_kafka: bool = False
    shares: bool = False
    """It is played in one world with others, over the store's own log: `play_together`."""
    second: bool = False
    """It needs a second node; with `shares` only."""
    backends: tuple[str, ...] = ("redis", "memcached")
    pending_max: int = 1000

    @property
    def alerts(self) -> tuple[str, ...]:
        """All that must fire."""
        return self.alert, *self.also


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

    def factor_of(self, alert: str) -> float:
        """By what this alert's times were divided."""
        return factor_of(alert, self.factor, self.factor * LONGER if self.incident.shares else None)


class Day:
    """What an incident's functions work with."""

    def __init__(self, world: World, watch: Watch, incident: Incident, stack: ExitStack) -> None:
        self.world, self.watch, self.incident = world, watch, incident
        self.undo = stack.callback
        """What must be undone before the next incident, also where this one went wrong."""
        self.memory: dict[str, Any] = {}
        """What `breaks` leaves for `mends`."""
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

    def look(self, command: str) -> str:
        """A command typed once more, of which the timeline has enough."""
        return self.world.cluster.pod_shell(filled_in(command)).stdout

    def first(self, shows: dict[str, str | None] | None = None, **own: str) -> None:
        """The page's first commands. `shows`: begin of a command to what its answer must show; `own`: `filled_in`'s."""
        for command in self.page.first():
            wanted = next((show for part, show in (shows or {}).items() if command.startswith(part)), "")
            self.run(filled_in(command, **own), wanted=wanted)

    def calm(self) -> None:
        """Wait until nothing fires or waits any more: then the incident begins. Raises `FalseAlarm`."""
        watch = self.watch

        def settled() -> bool:
            return bool(watch.fired) or watch.quiet()  # a false alarm needs no further wait

        self.until(settled, "nothing fires before anything is broken", END_S)
        watch.begin()

    def turn_to(self, alert: str) -> None:
        """Open another alert's page."""
        self.page = Page(alert)
        self.watch.note("person", f"reads the page of {alert}")

    def sql(self, part: str, **filled: str) -> list[tuple[Any, ...]]:
        """A statement of the page, asked of the store by its owner: what it answered."""
        asked = self.page.action(part)
        for word, value in filled.items():
            asked = asked.replace(word, value)
        with self.servers.connect() as connection:
            found = connection.execute(asked).fetchall()  # type: ignore[call-overload]
        self.watch.note("runbook", asked, f"{found}"[:SAID_MAX])
        return list(found)

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
    with World(servers, folder, pending_max=incident.pending_max) as world:
        return _played(incident, world)


def play_together(incidents: Sequence[Incident], servers: Servers, folder: Path) -> Iterator[Result]:
    """Several in one world, one after the other: each begins when nothing fires any more."""
    folder.mkdir(parents=True)
    second = servers.add_node() if any(one.second for one in incidents) else ""
    with World(servers, folder, long=servers.factor * LONGER, every=OFTEN, load=CALM_LOAD, second=second) as world:
        for number, incident in enumerate(incidents):
            yield _played(incident, world, after_another=number > 0)


def _played(incident: Incident, world: World, *, after_another: bool = False) -> Result:
    servers = world.servers
    with Watch(world.prometheus, after_another) as watch:
        over_s, failed = None, ""
        try:
            with ExitStack() as stack:
                day = Day(world, watch, incident, stack)
                time.sleep(CALM_S)
                day.calm()
                incident.breaks(day)
                _fires(day)
                incident.mends(day)
                over_s = _ends(day)
            world.load()
            _settles(day)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the report
            failed = f"{type(error).__name__}: {error}"
            watch.note("world", "MISSED", failed[:SAID_MAX])
            world.load()
            if incident.shares:
                watch.wait_for_quiet(END_S)  # what it has left behind is not the next one's
    return Result(incident, servers.backend, servers.factor, watch.lines, watch.fired, over_s, failed)


def _fires(day: Day) -> None:
    incident = day.incident
    within_s = (incident.stated_s + LOOK_S) / day.world.factor_of(incident.alert) + BUSY_S
    for alert in incident.alerts:
        day.until(lambda alert=alert: alert in day.watch.fired, f"{alert} fires within {within_s:.0f} s", within_s)  # type: ignore[misc]


def _ends(day: Day) -> float:
    """The page's own words come true, the alert ends, and nothing stale is left."""
    over = day.incident.over
    day.until(lambda: day.world.prometheus.query(over), f"it is over: {over}", END_S)
    day.happened(f"over, by the page's words: {over}")
    over_s = day.watch.now()
    day.world.agrees()
    day.happened("every row that is cached is as in the store")
    ours = set(day.incident.alerts)
    day.until(lambda: not ours & day.watch.states.keys(), f"{', '.join(sorted(ours))} ends", END_S)
    return over_s


def _settles(day: Day) -> None:
    """What waits is given its time, also after everything is as it was before: it may fire still, and be one too many,
    here or in the next one's calm."""
    time.sleep(AFTER_S)
    day.until(lambda: not _waits(day), "no other alert waits", END_S)
    wrong = day.watch.fired.keys() - {*day.incident.alerts} - day.incident.may.keys()
    if wrong:
        raise Missed(f"fired as well, and should not have: {', '.join(sorted(wrong))}")


def _waits(day: Day) -> set[str]:
    """What is not settled: alerts that wait, and those that may not even fire."""
    return {name for name, state in day.watch.states.items() if state == "pending" or name not in day.incident.may}
