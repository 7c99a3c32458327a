"""The daemon: poll, find the keys, tell the nodes, commit. PROTOCOL.md, "Applying the log".

One loop reads the log into a window; a worker for each node goes through it (`node.py`). The loop also
does the chores: layouts, dead nodes, is it still the same store. `books.py` commits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.errors import ConfigError, LogGap, StoreError
from cachelib.stores.base import Store
from invalidator.books import Books
from invalidator.dead_letters import DeadLetters
from invalidator.duties import Duties
from invalidator.epochs import Epochs
from invalidator.feed import Feed
from invalidator.fleet import Fleet
from invalidator.letterbox import Letterbox
from invalidator.lineage import Lineage
from invalidator.logs import Log
from invalidator.looks import Looks, visibility_of
from invalidator.metrics import Metrics
from invalidator.node import NodeWorker
from invalidator.roster import Reach, Roster
from invalidator.rules import Rules
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource, Positions, covers, merged
from invalidator.tally import Tally
from invalidator.trouble import Trouble
from invalidator.work import Window, Work

_ROOM_WAIT_S = 0.2
_KEEP_S = 0.25
_CHECK_STORE_S = 1.0
_STOP_S = 5.0


class Service:
    """See the module. `reload` gives rules read anew, or raises `ConfigError`. `pace`: see `Pace.saw`."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        source: ChangeSource,
        nodes: Sequence[tuple[str, Backend]],
        reach: Reach = from_url,
        rules: Rules,
        reload: Callable[[], Rules],
        log: Log,
        metrics: Metrics | None = None,
        letters: DeadLetters | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        turn_s: float = 0.1,
        pace: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.rules, self._told = rules, rules.names
        self.log = log
        self.trouble = Trouble(self.metrics, log, now_ms)
        self._store, self._source = store, source
        self._roster = Roster(nodes, reach)
        self._reload, self._clock_s = reload, clock_s
        self._now_ms, self._turn_s, self._pace = now_ms, turn_s, pace
        self._epochs = Epochs(store, self.metrics, log, clock_s)
        self.lineage = Lineage(store, self._epochs, log, versions=source.capability.versions)
        self.fleet = Fleet(settings.apply, self._epochs, self.lineage, self.metrics, log, clock_s)
        self.books = Books(settings, self.fleet, source, self.metrics, log, clock_s)
        self.letterbox = Letterbox(letters, settings.dead_letters, settings.apply, self.metrics, log, clock_s)
        self._window = Window(settings.apply.window)
        self._given: Positions = {}
        self.tally = Tally(clock_s)
        self._moving = self._running = False
        self._stop = threading.Event()
        self._feed = self._new_feed(source)
        self._asked_to_reload = threading.Event()
        self._chores: dict[str, float] = {}
        self._beat_at_s = clock_s()
        self._polled_at_s: float | None = None
        self._ready = False

    # --- asked from outside ------------------------------------------------------------------

    def stop(self) -> None:
        """Finish what is in hand, commit, and return from `run`. Safe in a signal handler."""
        self._stop.set()

    def ask_to_reload(self) -> None:
        """Read the rules anew soon. Safe in a signal handler."""
        self._asked_to_reload.set()

    @property
    def positions(self) -> Positions:
        """How far the log has been read."""
        return self._feed.at

    def healthy(self) -> bool:
        """The loop turns."""
        return self._clock_s() - self._beat_at_s < self.settings.http.stalled_after_s

    def ready(self) -> bool:
        """The log was read a moment ago, and every node has been told all up to there once (or is dead)."""
        polled_at_s = self._polled_at_s
        if self.letterbox.failing:
            return False
        if polled_at_s is None or self._clock_s() - polled_at_s >= self.settings.http.stalled_after_s:
            return False
        self._ready = self._ready or self.fleet.all_go_along()
        return self._ready

    # --- the loop ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Find out where to go on. Raises `StoreError` where the store cannot be asked."""
        self._source.moved()
        self.lineage.begin(self._source.reader(self._source.start()))
        start, committed = self._place(), self.books.committed
        for name, backend in self._roster.of(self._epochs.layout()).values():
            self._add(name, backend, start, counts=committed is not None and name in committed.counted)
        names = [worker.name for worker in self.fleet]
        self.log.info("started", store=self.lineage.current()[0], positions=start, nodes=names)

    def _add(self, name: str, backend: Backend, start: Positions, *, counts: bool) -> NodeWorker:
        feed = self._new_feed(self._source.reader(start), lambda: self._feed.at)
        worker = NodeWorker(name, backend, feed, self._duties(), counts=counts)
        self.fleet.add(worker)
        return worker

    def _join(self, name: str, backend: Backend) -> None:
        worker = self._add(name, backend, self._feed.at, counts=False)
        if self._running:
            worker.start()

    def _place(self) -> Positions:
        """Go on behind the committed offset, in the partitions that are read now."""
        end = self._source.end()
        committed = self._source.committed([name for name, _ in self._roster.of(self._epochs.layout()).values()])
        done = committed.positions if committed is not None else {}
        # "" is before everything: what was purged in front of a new consumer is a gap. Where the log's start says
        # nothing anyhow, every node without a position of its own gets new epochs, and older changes concern nobody.
        unknown = dict.fromkeys(end, "") if self._source.capability.whole else self._source.horizon()
        start = {partition: done.get(partition, unknown.get(partition, "")) for partition in end}
        self.books.place(committed, list(end))
        self._go_on(start)
        if not covers(end, start) and not covers(self._source.end(), start):
            self.lineage.broken("store_went_back", "the committed offset is ahead of the log", self._go_on)
        return start

    def _move(self) -> None:
        """Other partitions are read now: whatever is known of places in the log is found out anew."""
        self._moving = True
        positions = self._place()
        self.lineage.moved()
        self._moving = False
        self.log.info("placed anew", positions=dict(positions))

    def run(self) -> None:
        """Work until `stop`. Raises what a worker died of."""
        self._running = True
        for worker in self.fleet:
            worker.start()
        self.books.start()
        self.letterbox.start()
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            self._beat_at_s = self._clock_s()
            self.metrics.heartbeat.set_to_current_time()
            pause_s = self.turn()
            self.fleet.raise_if_crashed()
        self.log.info("stopping")
        self.fleet.drain(self._given)
        self.books.stop(_STOP_S)
        self.letterbox.stop(_STOP_S)
        committed = self.books.committed
        self.log.info("stopped", committed=dict(committed.positions) if committed else None)

    def turn(self) -> float:
        """Read once, and do the chores that are due. Returns how long to pause before the next."""
        self._do_chores()
        if self._source.moved() or self._moving:
            pause_s = self._tried(self._move)
            if self._moving:
                return pause_s
        if not self._window.wait_for_room(_ROOM_WAIT_S):
            return self._tried(self._source.rest)  # every node is behind: reading on would only fill memory (I10)
        try:
            for work in self._feed.next(self.settings.source.batch_max, self.settings.source.poll_s):
                self._take(work)
        except LogGap as gap:
            self.metrics.gaps.inc()
            what = str(gap)
            return self._tried(lambda: self.lineage.broken("log_gap", what, self._go_on))
        except StoreError as error:
            return self._store_failed(error)
        self.trouble.answered("log")
        self._polled_at_s = self._clock_s() if self._feed.placed else None
        self.metrics.progress.set_to_current_time()
        return 0.0

    def _take(self, work: Work) -> None:
        self.lineage.saw(work.highest)
        self._window.add(work)
        if not work.partial:
            self._pace(work.changes)
        self._given = merged(self._given, work.after)

    def _go_on(self, positions: Positions) -> None:
        self._given = {}  # it may be of a log that is no more, and nobody gets as far again
        self._feed.seek(positions)
        self._window.restart()

    def _tried(self, deed: Callable[[], Any]) -> float:
        """Do it. Where the store cannot be asked, say so; it will be tried again, after the pause returned."""
        try:
            deed()
        except StoreError as error:
            return self._store_failed(error)
        return 0.0

    def _store_failed(self, error: StoreError) -> float:
        self.trouble.failed("log", error)
        return self.settings.apply.retry_max_s

    # --- chores ------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        for name, every_s, chore in (
            ("keep", _KEEP_S, self._epochs.keep),
            ("store", _CHECK_STORE_S, lambda: self.lineage.check(self._go_on)),
            ("layout", _KEEP_S, lambda: self.fleet.follow(self._roster.of(self._epochs.layout()), self._join)),
            ("nodes", _KEEP_S, self.fleet.look_after),
            ("rules", _KEEP_S, self._renew_untold),
        ):
            now_s = self._clock_s()
            if now_s - self._chores.setdefault(name, now_s) >= every_s:
                self._chores[name] = now_s
                self.trouble.minding(name, chore)
        if self._asked_to_reload.is_set():
            self._asked_to_reload.clear()
            self._take_new_rules()

    def _take_new_rules(self) -> None:
        try:
            rules = self._reload()
        except ConfigError as error:
            self.metrics.reloads.labels("refused").inc()
            self.log.error("the new configuration is refused, the old one stays", error=str(error))
            return
        self._told = (self._told - set(rules.not_in(self.rules))) & rules.names
        self.rules = rules
        self.trouble.minding("rules", self._renew_untold)
        self.metrics.reloads.labels("taken").inc()
        self.log.info("took a new configuration", entities=[entity.name for entity in rules.entities])

    def _renew_untold(self) -> None:
        new = self.rules.names - self._told
        if new:  # nobody told the caches of the changes of these before
            self._epochs.renew(new, "new_rules")
            self._told |= new  # only now: what the nodes had of them is on its way out

    # --- parts -------------------------------------------------------------------------------

    def _new_feed(self, source: ChangeSource, done_elsewhere: Callable[[], Positions] = dict) -> Feed:
        settings = self.settings.apply
        visibility = visibility_of(settings, self._store, self._clock_s) if source.capability.shows_early else None
        looks = Looks(visibility, settings.pending_max, self.letterbox.kept, self._clock_s)
        wait = self._stop.wait
        rules, box = lambda: self.rules, self.letterbox
        tally = self.tally if source is self._source else Tally(self._clock_s)
        return Feed(source, rules, self._epochs, looks, box, self.metrics, tally, done_elsewhere, wait)

    def _duties(self) -> Duties:
        return Duties(
            settings=self.settings.apply,
            namespace=self.settings.namespace,
            consumer=self.settings.consumer,
            store=self._store,
            window=self._window,
            epochs=self._epochs,
            metrics=self.metrics,
            log=self.log,
            start_over=self.lineage.start_over,
            identity=self.lineage.current,
            highest=self.lineage.highest_version,
            committed=lambda: self.books.committed,
            entities=lambda: self._told,
            turn_s=self._turn_s,
            clock_s=self._clock_s,
            now_ms=self._now_ms,
        )
