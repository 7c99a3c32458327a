"""The verifier's loop: read changes, ask every node when they are due, ask the store about what is suspect.

It reads the same log as the daemon, from outside any group, and commits nothing: it holds up neither the daemon nor the
purge of the log. What it missed it did not check, that is all.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cachelib.compare import Sight, served, sight
from cachelib.errors import DecodeError, LogGap, StoreError
from cachelib.layout import Layout
from cachelib.model import Name
from cachelib.stores.base import Store
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.rules import Rules
from invalidator.settings import VerifySettings
from invalidator.sources.base import ChangeSource
from invalidator.verifier.checks import Check, Ladder
from invalidator.verifier.findings import Finding, Findings
from invalidator.verifier.outlook import Outlook
from invalidator.verifier.probe import Probe, Told
from invalidator.verifier.referee import HOT, Asked, Referee, Ruling, Suspect
from invalidator.verifier.sampler import HotKeys, Sampler
from invalidator.verifier.tallies import Outcome, Tallies

_BATCH = 500
"""Keys asked of a node in one round trip."""
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """What the verifier looks at. `source`: reads from where it stands. `store`: the layout and the clock."""

    store: Store
    source: ChangeSource
    nodes: Sequence[Probe]
    rules: Rules
    truths: Asked


class Verifier:
    """`run` until `stop`, from any thread or a signal handler."""

    def __init__(
        self,
        world: World,
        settings: VerifySettings,
        namespace: str,
        *,
        metrics: Metrics,
        log: Log,
        chance: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.store_error = ""
        self.changes = self.chosen = self.gaps = self.refused = 0
        self.began_s = clock_s()
        ages = settings.ages()
        self._ages = list(ages)
        self.ladder = Ladder(list(ages.values()), settings.pending_max)
        self.tallies = Tallies([*ages, HOT])
        self.findings = Findings()
        self.hot = HotKeys(settings.hot)
        self._outlook = Outlook(world.store, namespace, clock_s, now_ms)
        self.referee = Referee(
            world.truths,
            namespace,
            loads_per_s=settings.loads,
            most=settings.suspects_max,
            absent_after_s=settings.absent_after_s,
            store_us=self._outlook.now_us,
            clock_s=clock_s,
        )
        self.world = world
        self._log = log
        self._clock_s = clock_s
        self._now_ms = now_ms
        self._sampler = Sampler(world.rules, settings.sample, chance or random.Random(), self.began_s)
        self._hot_at_s = self._said_at_s = self.beat_s = self.began_s
        self.ready = self._lost = False
        self._in_doubt: set[tuple[str, str, bytes]] = set()
        self._stop = threading.Event()

    # --- life --------------------------------------------------------------------------------

    def stop(self) -> None:
        """Return from `run` soon. Safe in a signal handler."""
        self._stop.set()

    def run(self, for_s: float | None = None) -> None:
        """Verify until `stop`, or for so long; what was begun by then is asked to its end, but for no new changes."""
        until_s = None if for_s is None else self._clock_s() + for_s
        while not self._stop.is_set():
            reads = until_s is None or self._clock_s() < until_s
            if not reads and not len(self.ladder) and not len(self.referee):
                break
            self.turn(reads=reads)
        for ruling in self.referee.drop():
            self._ruled(ruling)

    def turn(self, *, reads: bool = True) -> None:
        """One round of everything that is due."""
        self.beat_s = self._clock_s()
        try:
            self._outlook.look()
            if reads:
                self._read(self._pause_s())
            else:
                self._stop.wait(self._pause_s())
            self._ask(self.ladder.due(self._clock_s(), _BATCH))
            if reads:
                self._ask_hot()
            self._rule()
            self.store_error = ""
        except StoreError as error:
            if not self.store_error:
                self._log.error("the store does not answer", error=str(error))
            self.store_error = str(error)
            self._stop.wait(_PAUSE_S)
        self.metrics.verify_waiting.set(len(self.ladder))
        self._say()

    def _pause_s(self) -> float:
        """Until something is due, at most a moment; suspects wait for their budget no longer than that."""
        due_s = self.ladder.next_s()
        longest_s = 0.05 if len(self.referee) else self.settings.poll_s
        return longest_s if due_s is None else max(0.0, min(longest_s, due_s - self._clock_s()))

    # --- the log -----------------------------------------------------------------------------

    def _read(self, timeout_s: float) -> None:
        source = self.world.source
        try:
            polled = None if self._lost else source.poll(self.settings.batch, timeout_s)
        except LogGap as gap:
            self.gaps += 1
            self._log.warning("changes were missed, and go unchecked", error=str(gap))
            self._lost, polled = True, None
        if polled is None:
            source.seek(source.end())
            self._lost = False
            return
        self.ready = True
        if not polled.events:
            return
        now_s = self._clock_s()
        readable_us = self._outlook.now_us()
        self.changes += len(polled.events)
        for event in self._sampler.choose(polled.events, now_s):
            self.chosen += 1
            for check in self._sampler.checks(event, readable_us, now_s):
                self.hot.saw(check)
                self._take(check)

    def _take(self, check: Check) -> None:
        if not self.ladder.add(check):
            self.refused += 1
            self._in_doubt -= check.doubts()

    # --- the nodes ---------------------------------------------------------------------------

    def _ask(self, checks: Sequence[Check]) -> None:
        layout = self._outlook.layout
        if layout is None:
            return self._none_cached(checks)
        named = self._outlook.named(layout, checks)
        for check in checks:
            self.tallies.late_s_max = max(self.tallies.late_s_max, self.ladder.late_s(check, self._clock_s()))
        for node in self.world.nodes:
            asked = [one for one in named if not one[0].rechecks or node.name in one[0].doubted]
            self._ask_node(layout, node, asked, lambda check: self._ages[check.step])
        for check in checks:
            if not self.ladder.again(check):
                self._in_doubt -= check.doubts()
        return None

    def _ask_hot(self) -> None:
        """Compare the keys that change most with the store, with what the budget leaves."""
        now_s, layout = self._clock_s(), self._outlook.layout
        share = int((now_s - self._hot_at_s) * self.settings.loads / 2)
        if layout is None or share < 1 or len(self.referee):
            return
        self._hot_at_s = now_s
        named = self._outlook.named(layout, self.hot.turn(min(share, _BATCH)))
        for node in self.world.nodes:
            self._ask_node(layout, node, named, lambda _: HOT)

    def _ask_node(
        self, layout: Layout, node: Probe, named: Sequence[tuple[Check, Name]], age: Callable[[Check], str]
    ) -> None:
        pairs = self._outlook.asked_of(node.name, layout, named)
        if not pairs:
            return
        answer = node.ask([name for _, name in pairs], {check.place[0] for check, _ in pairs if check.place})
        if answer is None:
            for check, _ in pairs:
                self._count(node.name, age(check), "unanswered")
            return
        raws, told = answer
        asked_s, now_ms = self._clock_s(), self._now_ms()
        for (check, name), raw in zip(pairs, raws, strict=True):
            self._see(Seen(node.name, check, name, raw, age(check), asked_s), now_ms, told)

    def _see(self, seen: Seen, now_ms: int, told: Told) -> None:
        check, node = seen.check, seen.node
        try:
            item = served(seen.raw, now_ms)
        except DecodeError:
            return self._count(node, seen.after, "unreadable")
        if item is None:
            if told.of(check):
                check.cleared.add(node)
            return self._count(node, seen.after, "empty")
        if seen.after != HOT and sight(item, check.known) is Sight.FRESH:
            check.newest[node] = max(check.newest.get(node, 0), item.version)
            return self._count(node, seen.after, "fresh")
        suspect = Suspect(check, node, seen.name, item, seen.after, seen.asked_s, told.of(check))
        ruling = self.referee.take(suspect)
        if ruling is not None:
            self._ruled(ruling)
        return None

    def _none_cached(self, checks: Iterable[Check]) -> None:
        for check in checks:
            for node in self.world.nodes:
                self._count(node.name, self._ages[check.step], "empty")
            if not self.ladder.again(check):
                self._in_doubt -= check.doubts()

    # --- the store ---------------------------------------------------------------------------

    def _rule(self) -> None:
        before = self.referee.loads
        try:
            for ruling in self.referee.rule(self._outlook.read):
                self._ruled(ruling)
        finally:
            self.metrics.verify_loads.inc(self.referee.loads - before)

    # --- what came of it ---------------------------------------------------------------------

    def _ruled(self, ruling: Ruling) -> None:
        suspect = ruling.suspect
        self._count(suspect.node, suspect.after, ruling.outcome)
        if ruling.again is not None and not self._in_doubt & ruling.again.doubts():
            # One look again at a time, or a key that stays stale would be counted over and over.
            self._in_doubt |= ruling.again.doubts()
            self._take(ruling.again)
        if ruling.finding is not None:
            self._found(ruling.finding)

    def _found(self, finding: Finding) -> None:
        alarm = finding.why != "lag" or finding.age_s >= self.settings.tolerate_s
        first = finding.why not in {one.why for one in self.findings.recent}
        self.findings.add(finding, alarm=alarm)
        self.metrics.verify_stale.labels(finding.node, finding.why).inc()
        if alarm:
            self.metrics.verify_alarms.labels(finding.why).inc()
            if first or self.findings.alarms <= self.settings.said_max:
                self._log.error("a cache serves what the store no longer has", **finding.plain())

    def _count(self, node: str, after: str, outcome: Outcome) -> None:
        self.tallies.add(after, outcome)
        self.metrics.verify_checks.labels(node, after, outcome).inc()

    def _say(self) -> None:
        now_s = self._clock_s()
        if now_s - self._said_at_s >= self.settings.report_s:
            self._said_at_s = now_s
            rows = {row["after"]: {name: row[name] for name in _SAID} for row in self.tallies.rows()}
            self._log.info("verified", changes=self.changes, chosen=self.chosen, alarms=self.findings.alarms, **rows)


_SAID = ("served", "stale", "nines_at_least")


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer of a node."""

    node: str
    check: Check
    name: Name
    raw: bytes | None
    after: str
    asked_s: float
