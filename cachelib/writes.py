"""What became of a transaction's writes, key by key: kept for the session that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cachelib.effects import Effect
from cachelib.history import History, Mark, key_mark


class Writes:
    """Of one transaction; `commit` reports here, in the order of events."""

    def __init__(self) -> None:
        self._effects: Sequence[Effect] | None = ()
        self._sent = self._refused = self._done = False
        self.told: list[Effect] = []
        """Those that the cache has confirmed."""

    def sent(self, effects: Sequence[Effect] | None) -> None:
        """The commit is about to be sent. None: of more keys than can be named."""
        self._effects, self._sent = effects, True

    def refused(self) -> None:
        """The store refused: nothing is committed."""
        self._refused = True

    def done(self) -> None:
        """It is committed. Where neither was said, nobody knows."""
        self._done = True

    def confirmed(self, effects: Iterable[Effect]) -> None:
        """The cache knows of these."""
        self.told = list(effects)

    def remember(self, history: History, now_us: int) -> dict[int, Mark]:
        """Tell the session; the marks by key. `now_us`: the store's clock is not later, after it all."""
        if not self._sent or self._refused:
            return {}
        if self._effects is None:
            history.wrote_all(now_us)
            return {}
        confirmed = {id(one) for one in self.told}
        marks = {
            key_mark(one.entity.name, one.text): self._mark(one, now_us)
            for one in self._effects
            if not (one.entity.strong and id(one) in confirmed)  # strong reads show it to everybody
        }
        history.wrote(marks, now_us)
        return marks

    def _mark(self, effect: Effect, now_us: int) -> Mark:
        exact = self._done and effect.version and not effect.force and not effect.entity.strong
        return Mark(effect.version) if exact else Mark(0, now_us)
