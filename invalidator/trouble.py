"""Why store or log do not answer: now, and when they last did not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cachelib.errors import StoreError
from invalidator.logs import Log
from invalidator.metrics import Metrics


class Trouble:
    """Of one thread, and read by others. `now_ms`: the clock of people, in milliseconds since 1970.

    Several things are asked at times of their own: that one is answered says nothing of the others.
    """

    def __init__(self, metrics: Metrics, log: Log, now_ms: Callable[[], int]) -> None:
        self.error = ""
        """Why one of them was not answered when it was last asked; "" where all are."""
        self.last = "", ""
        """Why and when (UTC, ISO 8601) that last was so; "" for never."""
        self._metrics = metrics
        self._log = log
        self._now_ms = now_ms
        self._unanswered: set[str] = set()

    def minding(self, asked: str, deed: Callable[[], object]) -> None:
        """Do what asks for it; to be done again at its time."""
        try:
            deed()
        except StoreError as error:
            self.failed(asked, error)
        else:
            self.answered(asked)

    def failed(self, asked: str, error: StoreError) -> None:
        """What is named so was not answered."""
        self._metrics.source_errors.inc()
        if not self.error:
            self._log.error("the store does not answer", error=str(error))
        self._unanswered.add(asked)
        at = datetime.fromtimestamp(self._now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        self.error, self.last = str(error), (str(error), at.replace("+00:00", "Z"))

    def answered(self, asked: str) -> None:
        """It was."""
        self._unanswered.discard(asked)
        if self.error and not self._unanswered:
            self._log.info("the store answers again")
            self.error = ""
