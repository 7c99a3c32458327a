"""A node's worker: one thread that keeps one cache node told.

It connects, finds out how far the node is (I11), catches up by itself where that is too far back, and
then goes along with the others. It retries for ever; the service decides when the others
wait no longer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import tenacity

from cachelib.backends.base import Backend
from cachelib.errors import CacheError, CacheFull, LogGap, StoreError
from cachelib.places import node_name
from invalidator.connecting import connect
from invalidator.duties import Duties
from invalidator.feed import Feed
from invalidator.session import Session
from invalidator.sources.base import Committed, Positions, covers, merged, of_now
from invalidator.tally import Rate
from invalidator.work import Work


class NodeWorker:
    """See the module. `feed` is the node's own reader of the log, used while it is behind."""

    def __init__(self, name: str, backend: Backend, feed: Feed, duties: Duties, *, counts: bool) -> None:
        self.name = name
        self.place = node_name(name)
        """What the layout calls it."""
        self.counts = counts
        self.crashed: BaseException | None = None
        self.failing_since_s: float | None = None
        self.last_error = self.past_error = ""
        self.rate = Rate(duties.clock_s)
        committed = duties.committed()
        self.confirmed: Positions = committed.positions if committed is not None and counts else {}
        """What the node surely knows; the committed offset never passes it while the node counts."""
        self.session: Session | None = None
        self._backend = backend
        self._feed = feed
        self._duties = duties
        self._met = ""
        """The start of the server that answered last, and to all that is `confirmed`."""
        self._number: int | None = None
        self._reading = False
        self._connected_to: tuple[str, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"node {name}", daemon=True)
        settings = duties.settings
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(CacheError),
            wait=tenacity.wait_random_exponential(multiplier=settings.retry_first_s, max=settings.retry_max_s),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=lambda state: self.failed(state.outcome.exception() if state.outcome else None),
            reraise=True,
        )

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin working."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop after the batch in hand, and close the connection."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._feed.source.close()
        self._backend.close()

    @property
    def in_window(self) -> bool:
        """It goes along with the others."""
        return self._number is not None

    def behind(self) -> int:
        """Changes that were read and not yet applied here; while it reads by itself, at least those in the window."""
        number = self._number
        return self._duties.window.behind(number if number is not None else 0)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._retrying(self.step)
        except CacheError:
            pass  # stopped while it failed
        except BaseException as error:  # noqa: BLE001 - the service stops with it: a dead thread must not be silent
            self.crashed = error

    def failed(self, error: BaseException | None) -> None:
        """A step raised this."""
        duties = self._duties
        if isinstance(error, StoreError):
            duties.log.warning("the store does not answer", node=self.name, error=str(error))
            return
        duties.metrics.retries.labels(self.name).inc()
        self.last_error = self.past_error = str(error)
        if self.session is not None:
            self.session.refreshes.lost()
            self._count_refreshes(self.session)
        # What the last batch did is not known: the node's own position will tell.
        self.session = None
        self._number = None
        duties.window.leave(self.name)
        if self.failing_since_s is None:
            self.failing_since_s = duties.clock_s()
            duties.metrics.node_up.labels(self.name).set(0)
            duties.log.error("a node does not answer", node=self.name, error=self.last_error)

    # --- one step ----------------------------------------------------------------------------

    def step(self) -> None:
        """Connect where that is needed, apply what is next, and look whether it still is the same server."""
        if self.session is None or self._connected_to != self._duties.identity():
            self.session = self._connect()
        session = self.session
        works = self._next(session)
        now_s = self._duties.clock_s()
        due = now_s - session.checked_at_s >= self._duties.settings.positions_s
        if due:
            session.others.look(session)
        if due or any(work.effects for work in works):
            self._apply(session, works)
        else:
            session.skip(works)
        if self._number is not None:
            self._number += len(works)
            self.counts = True
        if due:
            session.check_instance()
            session.checked_at_s = now_s
            if session.half_noted:  # the first was written on the start that we connected to: now the second
                self._apply(session, ())
        if self.failing_since_s is not None:
            after_s = round(self._duties.clock_s() - self.failing_since_s, 1)
            self._duties.log.info("a node answers again", node=self.name, after_s=after_s)
            self.failing_since_s, self.last_error = None, ""

    def _next(self, session: Session) -> Sequence[Work]:
        duties = self._duties
        if self._number is None:
            self._number = duties.window.join(self.name, session.positions)
        if self._number is not None:
            if self._reading:
                self._feed.source.close()
                self._reading = False
            works = duties.window.take(self.name, self._number, duties.settings.batch, duties.turn_s)
            if works is not None:
                return works
            self._number = None
            # It is behind; or the log goes on elsewhere, and it finds its place the same way.
            duties.log.info("a node leaves the window and reads the log by itself", node=self.name)
        return self._catch_up(session)

    def _catch_up(self, session: Session) -> Sequence[Work]:
        duties = self._duties
        pardoned = duties.epochs.pardoned(session.positions, self.place)
        if not covers(session.positions, pardoned):
            session.jump(merged(session.positions, pardoned))
            self._reading = False
        if not self._reading:
            self._feed.seek(session.positions)
            self._reading = True
        works: list[Work] = []
        try:
            for work in self._feed.next(duties.settings.batch, duties.turn_s):
                works.append(work)
        except LogGap as gap:
            duties.log.error("a node needs what the log no longer has", node=self.name, error=str(gap))
            self._reading = False  # first: a reader may tell a gap once, and what follows may fail
            session.jump(duties.start_over("log_purged", True, self.place).positions)
            return ()
        except StoreError:
            if not works:
                raise
            # What was given is to be told now; what could not be asked for is asked for the next time.
        return works

    def _apply(self, session: Session, works: Sequence[Work]) -> None:
        duties, metrics = self._duties, self._duties.metrics
        try:
            layout = duties.epochs.layout()
        except StoreError:
            self._reading = False  # the node's own reader stands behind these works: they must come again (I9)
            raise
        began_s = duties.clock_s()
        try:
            answers = session.apply(works, layout, duties.now_ms())
        except CacheFull as full:
            self._note_refused(full)
            return
        session.verify()
        self.confirmed, self._met = session.confirmed, session.instance
        self._count_refreshes(session)
        if not answers:
            return
        metrics.apply_s.labels(self.name).observe(duties.clock_s() - began_s)
        metrics.batch.observe(len(answers))
        self.rate.add(len(answers))
        for answer, number in Counter(type(answer).__name__.lower() for answer in answers).items():
            metrics.operations.labels(self.name, answer).inc(number)
        now_us = duties.now_ms() * 1000
        for work in works:
            if work.oldest_us:
                metrics.visible_s.labels(self.name).observe(max(0, now_us - work.oldest_us) / 1e6)

    def _count_refreshes(self, session: Session) -> None:
        told, metrics = session.refreshes.take(), self._duties.metrics
        for answer, number in told.puts.items():
            metrics.refreshes.labels(self.name, answer).inc(number)
        for outcome, number in told.verdicts.items():
            metrics.refreshes_watched.labels(self.name, outcome).inc(number)

    def _note_refused(self, full: CacheFull) -> None:
        self._duties.metrics.notes_refused.labels(self.name).inc()
        if self.last_error != str(full):
            self.last_error = str(full)
            self._duties.log.error("a node has no room for its position", node=self.name, error=self.last_error)

    # --- connecting --------------------------------------------------------------------------

    def _connect(self) -> Session:
        duties = self._duties
        self._number, self._reading = None, False
        duties.window.leave(self.name)
        known = duties.identity()
        session = connect(self.name, self._backend, self._feed.source, duties, known[0], self._committed, self._met)
        self._connected_to = known
        duties.metrics.node_up.labels(self.name).set(1)
        return session

    def _committed(self, end: Positions) -> Committed | None:
        """The committed offset, as far as this node is concerned: if it counts, that is what it surely knows."""
        confirmed, committed = of_now(self.confirmed, end), self._duties.committed()
        if not (self.counts and confirmed):
            return committed
        others = committed.positions if committed is not None and self.name in committed.counted else {}
        return Committed({**others, **confirmed}, frozenset((self.name,)))
