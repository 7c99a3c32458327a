"""Checks with threads: one lease among many readers, and no stale hit while everything happens at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from threading import Barrier, Lock, Thread

from cachelib.errors import CacheUnavailable
from cachelib.model import Claim, Fill, Get, Held, Leased, Name, Put, RaiseFloor, Release, value_of
from cachelib.testing.conformance_subject import Subject, must

NOW_MS = 1_700_000_000_000
TTL_MS = 3_600_000

Worker = Callable[[Name, Random], None]


def check_concurrent_claims(subject: Subject, *, readers: int = 8, rounds: int = 20) -> None:
    """Of many readers that miss one key together exactly one is leased; the others are held (I4)."""
    for _ in range(rounds):
        name, start, answers = subject.name(b"claims"), Barrier(readers), list[object]()

        def read(token: int, name: Name = name, start: Barrier = start, answers: list[object] = answers) -> None:
            start.wait()
            answers.append(subject.backend.execute(name, Get(token, 30_000), NOW_MS))

        _together([partial(read, token) for token in range(1, readers + 1)])
        leased = [answer for answer in answers if isinstance(answer, Leased)]
        held = [answer for answer in answers if isinstance(answer, Held)]
        must(len(leased) == 1 and len(held) == readers - 1, f"{len(leased)} leased, {len(held)} held of {readers}")
        item = subject.item(name)
        must(item is not None and item.lease == leased[0].token, f"{leased[0].token} was leased, {item} knows")


def check_storm(subject: Subject, *, steps: int = 150, seed: int = 0) -> None:
    """Writers commit and tell, some late; readers fill; items go. No hit is older than what was told (I1–I4)."""
    storm = _Storm(subject)
    workers = [storm.write_through, storm.write_late, storm.invalidate, storm.read, storm.read, storm.populate]
    workers.append(storm.evict)
    _together([_repeat(storm, worker, steps, Random(seed + i)) for i, worker in enumerate(workers)])
    must(storm.hits > 0, "the storm had no hit: it has shown nothing")


class _Storm:
    """A store with one number for each of two rows, their keys, and what has been acknowledged."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.backend = subject, subject.backend
        self.names = [subject.name(b"storm"), subject.name(b"storm")]
        self.lock = Lock()
        self.committed = dict.fromkeys(self.names, 1)
        self.told = dict.fromkeys(self.names, 0)
        self.hits = 0

    def write_through(self, name: Name, random: Random) -> None:
        """Commit, put."""
        self._put(name, self._commit(name))

    def write_late(self, name: Name, random: Random) -> None:
        """Commit twice, and tell of the older one last: a put that was overtaken."""
        first, second = self._commit(name), self._commit(name)
        self._put(name, second)
        self._put(name, first)

    def populate(self, name: Name, random: Random) -> None:
        """Claim the lease, commit, put under it."""
        token = random.getrandbits(63) + 1
        self.backend.execute(name, Claim(token, 30_000), NOW_MS)
        self._put(name, self._commit(name), token)

    def invalidate(self, name: Name, random: Random) -> None:
        """Commit, raise the floor; then once more, with an older event behind it."""
        version = self._commit(name)
        for told in (version, version, max(1, version - 1)):
            self.backend.execute(name, RaiseFloor(told, "update", TTL_MS), NOW_MS)
        self._acknowledge(name, version)

    def evict(self, name: Name, random: Random) -> None:
        """As a full server would, now and then."""
        if random.random() < 0.2:
            self.subject.evict(name)

    def read(self, name: Name, random: Random) -> None:
        """Read, and fill under the lease, or give it back."""
        token, told = random.getrandbits(63) + 1, self.told[name]
        item = self.subject.item(name)
        if item is not None and item.fresh:
            self.hits += 1
            must(item.version >= told, f"{told} had been told of, and then {item.version} was served")
        elif isinstance(self.backend.execute(name, Get(token, 30_000), NOW_MS), Leased):
            if random.random() < 0.1:
                self.backend.execute(name, Release(token), NOW_MS)
                return
            version = self.committed[name]
            self.backend.execute(name, Fill(token, value_of(b"%d" % version), version, TTL_MS), NOW_MS)

    def _commit(self, name: Name) -> int:
        with self.lock:
            self.committed[name] += 1
            return self.committed[name]

    def _put(self, name: Name, version: int, token: int = 0) -> None:
        put = Put(value_of(b"%d" % version), version, "update", TTL_MS, TTL_MS, token=token)
        self.backend.execute(name, put, NOW_MS)
        self._acknowledge(name, version)

    def _acknowledge(self, name: Name, version: int) -> None:
        with self.lock:
            self.told[name] = max(self.told[name], version)

    def one_of(self, random: Random) -> Name:
        """Any of the two names."""
        return random.choice(self.names)


def _repeat(storm: _Storm, worker: Worker, steps: int, random: Random) -> Callable[[], None]:
    def run() -> None:
        for _ in range(steps):
            try:
                worker(storm.one_of(random), random)
            except CacheUnavailable:
                pass  # not told, so nothing was promised

    return run


def _together(calls: list[Callable[[], None]]) -> None:
    """Run them in threads; the first error of any is raised here."""
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            errors.append(error)

    threads = [Thread(target=guarded, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
