"""After the load: does everything that the cache would serve agree with the store?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cachelib import Cache
from cachelib.stores import SqlStore
from loadgen.record import ABSENT
from loadgen.stage import NO_ROW, Stage
from loadgen.tables import Subject
from loadgen.targets.stamped import stamp_in

CHUNK = 500
AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Settled:
    """`seconds`: how long after the load nothing differed any more; None where something did to the end.

    `compared`: keys; `cached`: those that were served as hits; `differing`: what differed at last.
    """

    seconds: float | None
    compared: int
    cached: int
    differing: tuple[str, ...]


class Comparison:
    """The whole cache against the whole store."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._subjects = stage.dataset.subjects

    def warm(self) -> None:
        """Read every key once."""
        with self._cache() as cache:
            self._differing(cache, self._stage.keys)

    @contextmanager
    def _cache(self) -> Iterator[Cache]:
        store = SqlStore(self._stage.store_url)
        entities = [subject.entity for subject in self._subjects]
        with Cache(self._stage.cache_url, store=store, entities=entities, namespace=self._stage.namespace) as cache:
            yield cache
        store.close()

    def settle(self, within_s: float) -> Settled:
        """Look until nothing differs, then compare every key once more, so that nothing came back."""
        began = time.monotonic()
        with self._cache() as cache:
            differing, cached = self._differing(cache, self._stage.keys)
            settled_s = time.monotonic() - began
            while any(differing) and time.monotonic() - began < within_s:
                time.sleep(AGAIN_S)
                differing, _ = self._differing(cache, [list(found) for found in differing])
                settled_s = time.monotonic() - began
            if not any(differing):
                differing, _ = self._differing(cache, self._stage.keys)
        lines = [line for found in differing for line in found.values()]
        compared = sum(map(len, self._stage.keys))
        return Settled(None if lines else round(settled_s, 3), compared, cached, tuple(lines))

    def _differing(self, cache: Cache, keys: Sequence[Sequence[str]]) -> tuple[list[dict[str, str]], int]:
        """By subject, each key whose hit is not the store's row; and how many were hits."""
        found, cached = [], 0
        for subject, names in zip(self._subjects, keys, strict=True):
            differs, hits = self._of_subject(cache, subject, names)
            found.append(differs)
            cached += hits
        return found, cached

    def _of_subject(self, cache: Cache, subject: Subject, names: Sequence[str]) -> tuple[dict[str, str], int]:
        rows, differs, hits = self._stage.rows(subject), {}, 0
        for at in range(0, len(names), CHUNK):
            for key, answer in cache.read_many(subject.entity, names[at : at + CHUNK]).items():
                name = str(key)
                stamp = stamp_in(answer.value, subject, name) if answer.found else ABSENT
                version, expected = rows.get(name, NO_ROW)
                hits += answer.source == "hit"
                if stamp != expected or (answer.found and answer.version != version):
                    served = f"version {answer.version}" if answer.found else "absence"
                    stored = f"version {version}" if expected != ABSENT else "no row"
                    differs[name] = f"{subject.table} {name}: {answer.source} {served}, the store has {stored}"
        return differs, hits
