"""A node's worker: one thread that keeps one cache node told.

It connects, finds out how far the node is (I11), catches up by itself where that is too far back, and
then goes along with the others. It retries for ever; the service decides when the others
wait no longer.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tenacity

from cachelib.backends.base import Backend
from cachelib.errors import CacheError, CacheFull, LogGap, StoreError
from cachelib.stores.base import Store
from invalidator.epochs import Amnesty, Epochs
from invalidator.feed import Feed
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.positions import Begin, StartOver, begin, found, note_names
from invalidator.session import Session
from invalidator.settings import ApplySettings
from invalidator.sources.base import Committed, Positions, covers, merged, of_now
from invalidator.tally import Rate
from invalidator.watermark import Proof
from invalidator.work import Window, Work


@dataclass(frozen=True, slots=True)
class Duties:
    """What all workers share.

    `start_over(why, anew)`: give everything new epochs; unless `anew`, those are good that were given
    since the store last went back. `identity`: who the store is, and how often it went back, as the
    service last saw it; a change makes every worker connect anew. `highest`: the highest version
    that the store has given out, None where it does not tell. `turn_s`: a worker with nothing to do
    looks up so often.
    """

    settings: ApplySettings
    namespace: str
    consumer: str
    store: Store
    window: Window
    epochs: Epochs
    metrics: Metrics
    log: Log
    start_over: Callable[[str, bool], Amnesty]
    identity: Callable[[], tuple[str, int]]
    highest: Callable[[], int | None]
    committed: Callable[[], Committed | None]
    turn_s: float = 0.1
    clock_s: Callable[[], float] = time.monotonic
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class NodeWorker:
    """See the module. `feed` is the node's own reader of the log, used while it is behind."""

    def __init__(self, name: str, backend: Backend, feed: Feed, duties: Duties, *, counts: bool) -> None:
        self.name = name
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
        pardoned = duties.epochs.pardoned(session.positions)
        if not covers(session.positions, pardoned):
            session.jump(merged(session.positions, pardoned))
            self._reading = False
        if not self._reading:
            self._feed.seek(session.positions)
            self._reading = True
        try:
            return list(self._feed.next(duties.settings.batch, duties.turn_s))
        except LogGap as gap:
            duties.log.error("a node needs what the log no longer has", node=self.name, error=str(gap))
            session.jump(duties.start_over("log_purged", True).positions)
            self._reading = False
            return ()

    def _apply(self, session: Session, works: Sequence[Work]) -> None:
        duties, metrics = self._duties, self._duties.metrics
        layout = duties.epochs.layout()
        began_s = duties.clock_s()
        try:
            answers = session.apply(works, layout, duties.now_ms())
        except CacheFull as full:
            self._note_refused(full)
            return
        session.verify()
        self.confirmed = session.confirmed
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
        end, now_us = self._feed.source.end(), duties.store.now_us()
        horizon = self._feed.source.horizon()  # before it is seen to be empty: what is filled then may miss what comes
        instance = self._backend.instance()
        names = [name for at in end for name in note_names(duties.namespace, duties.consumer, at)]
        raw = self._backend.read_notes(names)
        notes = found(list(end), raw)
        # Another member may have been writing them until a moment ago, and so be further than we asked.
        far = end if covers(end, notes.positions) else self._feed.source.end()
        decision = begin(
            self.name,
            notes,
            partitions=list(end),
            committed=self._committed(end),
            store=known[0],
            highest=duties.highest(),
            empty=self._empty(),
            end=far,
            horizon=horizon,
            whole=self._feed.source.capability.whole,
        )
        session = Session(
            backend=self._backend,
            namespace=duties.namespace,
            consumer=duties.consumer,
            store=known[0],
            instance=instance,
            positions=self._begin(decision),
            proof=Proof(now_us, end),
            proves=self._feed.source.sees_all(),
            turns=dict(notes.turns),
            highest=notes.highest if isinstance(decision, Begin) else 0,
        )
        session.begun_anew = isinstance(decision, StartOver) or session.positions != notes.positions
        session.noted = session.positions
        if not session.begun_anew:
            session.written = {name: note for name, note in zip(names, raw, strict=True) if note is not None}
        session.check_instance()  # else the notes may be of another start of the server than the instance is
        self._connected_to = known
        duties.metrics.node_up.labels(self.name).set(1)
        return session

    def _begin(self, decision: Begin | StartOver) -> Positions:
        duties = self._duties
        if isinstance(decision, StartOver):
            duties.log.error("what a node holds cannot be trusted", node=self.name, why=decision.why)
            duties.metrics.connects.labels(self.name, decision.why).inc()
            return duties.start_over(decision.why, False).positions
        positions = merged(decision.positions, duties.epochs.pardoned(decision.positions))
        duties.log.info("node connected", node=self.name, goes_on_from=decision.why, positions=dict(positions))
        duties.metrics.connects.labels(self.name, decision.why).inc()
        return positions

    def _committed(self, end: Positions) -> Committed | None:
        """The committed offset, as far as this node is concerned: if it counts, that is what it surely knows."""
        confirmed, committed = of_now(self.confirmed, end), self._duties.committed()
        if not (self.counts and confirmed):
            return committed
        others = committed.positions if committed is not None and self.name in committed.counted else {}
        return Committed({**others, **confirmed}, frozenset((self.name,)))

    def _empty(self) -> bool:
        """Whether the node surely keeps nothing. Few backends can tell."""
        tells = getattr(self._backend, "empty", None)
        return bool(tells()) if callable(tells) else False
