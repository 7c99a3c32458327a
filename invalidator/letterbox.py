"""Dead letters on their way: numbered, kept in order by a thread of its own, and waited for (I9).

What they are about is invalidated at once, but is not done before they are kept. So a place that does not take them
holds the committed offset back and, when too many wait, the reading (I10); it never holds up an invalidation.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import tenacity

from invalidator.dead_letters import DeadLetters, Letter, NotKept
from invalidator.logs import Log, Seldom
from invalidator.metrics import Metrics
from invalidator.settings import ApplySettings, DeadLetterSettings

_BATCH = 100


class Letterbox:
    """Safe across threads. `letters` None: they are counted and logged only."""

    def __init__(
        self,
        letters: DeadLetters | None,
        settings: DeadLetterSettings,
        apply: ApplySettings,
        metrics: Metrics,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last_error = ""
        self.strangers = settings.unknown_tables == "keep"
        self._letters = letters
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._seldom = Seldom(log, clock_s)
        self._waiting: deque[Letter] = deque()
        self._posted = self._kept = 0
        self._failures = 0
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="letterbox", daemon=True)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(NotKept),
            wait=tenacity.wait_random_exponential(multiplier=apply.retry_first_s, max=apply.retry_max_s),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )

    # --- for who has letters -----------------------------------------------------------------

    def post(self, letters: Sequence[Letter]) -> int:
        """Take them. Returns the number of the last one posted; 0 where none is to be waited for."""
        for letter in letters:
            origin = letter.origin()
            self._seldom.error(f"{letter.kind} {origin.get('topic', letter.partition)}", _SAID[letter.kind], **origin)
            self._metrics.dead_letters.labels(letter.kind, "posted" if self._letters else "counted").inc()
        if self._letters is None or not letters:
            return 0
        with self._news:
            self._waiting.extend(letters)
            self._posted += len(letters)
            self._metrics.dead_letters_waiting.set(len(self._waiting))
            self._news.notify()
            return self._posted

    def kept(self, number: int) -> bool:
        """Whether all up to this one are kept."""
        return self._kept >= number

    @property
    def full(self) -> bool:
        """No more may be posted for now."""
        return len(self._waiting) >= self._settings.pending_max

    @property
    def failing(self) -> bool:
        """It has failed so often in a row that somebody should look."""
        return self._failures >= self._settings.tries

    # --- keeping them ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep them."""
        if self._letters is not None:
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Keep what waits, once more at most, and stop. What is not kept then is read again by the next process."""
        self._stop.set()
        with self._news:
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._letters is None:
            return
        if self._thread.is_alive():  # in the client, which is for one thread; what it has is not waited for any more
            self._log.error("the place of dead letters does not answer, and is left", waiting=len(self._waiting))
            return
        self._letters.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._stop.is_set())
            try:
                self._retrying(self.step)
            except NotKept:
                return  # stopped while it failed

    def step(self) -> None:
        """Keep some of those that wait. Raises `NotKept`, after which the same ones come next."""
        batch = list(islice(self._waiting, _BATCH))
        if not batch or self._letters is None:
            return
        try:
            self._kept_by(self._letters, batch)
        except NotKept as error:
            self._metrics.dead_letter_errors.inc()
            self._failures += 1
            self.last_error = str(error)
            if self._failures in (1, self._settings.tries):
                self._log.error("dead letters are not kept", error=self.last_error, tries=self._failures)
            raise
        with self._news:
            for letter in batch:
                self._waiting.popleft()
                self._metrics.dead_letters.labels(letter.kind, "kept").inc()
            self._kept += len(batch)
            self._metrics.dead_letters_waiting.set(len(self._waiting))
        if self._failures:
            self._log.info("dead letters are kept again", after_tries=self._failures)
        self._failures, self.last_error = 0, ""

    def _kept_by(self, letters: DeadLetters, batch: Sequence[Letter]) -> None:
        try:
            letters.keep(batch)
        except NotKept:
            raise
        except Exception as error:  # whatever a library raises: a thread that ended would hold up the offset for ever
            raise NotKept(f"{type(error).__name__}: {error}") from error


_SAID = {
    "undecodable": "a record that cannot be read",
    "bad_key": "a change whose key cannot be told",
    "unknown_table": "a change of a table that no entity depends on",
}
