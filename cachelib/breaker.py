"""A breaker: stop asking a node that does not answer, and try it again now and then. Pure."""

from __future__ import annotations

from cachelib.errors import ConfigError


class Breaker:
    """Opens after `failures` in a row; then lets one call through every `retry_ms`.

    The counts are plain attributes changed without a lock: a race among threads lets one call
    more or less through, and nothing else.
    """

    __slots__ = ("_failures", "_retry_ms", "_try_at_ms", "failed", "opened")

    def __init__(self, failures: int = 5, retry_ms: int = 500) -> None:
        if failures < 1 or retry_ms < 1:
            raise ConfigError(f"a breaker takes failures >= 1 and retry_ms >= 1, not {failures} and {retry_ms}")
        self._failures = failures
        self._retry_ms = retry_ms
        self._try_at_ms = 0
        self.failed = 0
        """Failures since the last success."""
        self.opened = 0
        """How often it has opened."""

    def another(self) -> Breaker:
        """One with the same settings, for another node."""
        return Breaker(self._failures, self._retry_ms)

    @property
    def open(self) -> bool:
        """Calls are refused, but for one now and then."""
        return self.failed >= self._failures

    def lets_through(self, now_ms: int) -> bool:
        """Whether a call may be tried now."""
        if not self.open:
            return True
        if 0 < self._try_at_ms - now_ms <= self._retry_ms:  # a clock set back must not keep it open
            return False
        self._try_at_ms = now_ms + self._retry_ms
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self.failed = 0

    def failed_at(self, now_ms: int) -> None:
        """A call was not answered."""
        self.failed += 1
        if self.failed == self._failures:
            self.opened += 1
        if self.open:
            self._try_at_ms = now_ms + self._retry_ms
