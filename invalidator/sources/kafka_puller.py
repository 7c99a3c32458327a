"""The thread that owns the group's client: it polls, commits, and builds another client when one is broken.

It goes on polling whatever the caches do: with a full buffer it pauses the partitions, so that the group
keeps its member and memory stays bounded (I10). Nobody waits for the thread without a limit; if it
hangs, as it did in a constructor while a broker was stopped, another one takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from cachelib.errors import CacheError, LogGap, StoreError
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import KafkaSourceSettings
from invalidator.sources.kafka_buffer import Batch, Buffer
from invalidator.sources.kafka_client import Build, KafkaClient, OutOfRange
from invalidator.sources.kafka_member import Done, Member
from invalidator.sources.kafka_places import Mark, Part
from invalidator.sources.kafka_side import discard

_POLL_S = 0.1
"""There is no way to wake a poll: seeks and commits wait so long at most."""
_RECORDS_MAX = 2000
_EMPTY_S = 5.0
_REJOINS_MAX = 3
_PAUSE_FIRST_S = 0.2
_STOP_S = 5.0


class Commit:
    """An offset that is being saved."""

    def __init__(self, marks: Mapping[Part, Mark]) -> None:
        self.marks = marks
        self.error: str | None = None
        self._said = threading.Event()

    def done(self, error: str) -> None:
        """It is, or failed."""
        self.error = error
        self._said.set()

    def wait(self, timeout_s: float) -> None:
        """Raises `StoreError` unless it is saved in time."""
        if not self._said.wait(timeout_s):
            raise StoreError(f"Kafka did not confirm the committed offset in {timeout_s:g} s")
        if self.error:
            raise StoreError(f"Kafka did not take the committed offset: {self.error}")


class Puller:
    """See the module. Its methods are for the source's threads."""

    def __init__(
        self,
        build: Build,
        group: str,
        source: KafkaSourceSettings,
        done: Done,
        metrics: Metrics,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._group = group
        self._source = source
        self._done = done
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._stop = threading.Event()
        self._commits: list[Commit] = []
        self._rejoins = 0
        self._anew = ""
        self._beat_at_s = clock_s()
        self._thread: threading.Thread | None = None
        self._replacing = threading.Lock()
        self.error = ""
        """Why nothing is read; "" while a client works."""
        self.member = self._new_member()

    # --- asked by the source -----------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._beat_at_s = self._clock_s()
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self._thread.start()

    def take(self, limit: int, timeout_s: float) -> list[Batch]:
        """What was fetched. Raises `LogGap`, and `StoreError` while no client works."""
        member = self.member
        with member.changed:
            member.changed.wait_for(lambda: member.buffer or member.gap or self.error, timeout_s)
            if member.buffer:
                return member.buffer.take(limit)
            if member.gap:
                raise LogGap(member.gap)
        self._mind_the_thread()
        if self.error:
            raise StoreError(self.error)
        return []

    def commit(self, marks: Mapping[Part, Mark]) -> None:
        """Save offsets. Raises `StoreError`."""
        asked = Commit(marks)
        with self.member.changed:
            self._commits.append(asked)
        asked.wait(self._source.commit_timeout_s)

    def connect_anew(self, why: str) -> None:
        """The client seems to be stuck."""
        self._anew = why

    def stop(self) -> None:
        """Leave the group."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _mind_the_thread(self) -> None:
        hung_s = self._clock_s() - self._beat_at_s
        if self._thread is None or self._stop.is_set() or hung_s < self._source.request_s + self._source.stalled_s:
            return
        self._log.error("the Kafka client hangs; another one takes its place", for_s=round(hung_s))
        with self._replacing:
            self.member = self._new_member(self.member)
            self.start()

    # --- the thread --------------------------------------------------------------------------

    def _new_member(self, before: Member | None = None) -> Member:
        buffer = Buffer(self._source.buffer_records, self._source.buffer_bytes)
        member = Member(buffer, self._done, self._metrics, self._clock_s)
        if before is not None and before.parts:
            member.taken(before.parts, lost=False)
        return member

    def _run(self) -> None:
        thread, pause_s = threading.current_thread(), _PAUSE_FIRST_S
        while self._thread is thread and not self._stop.is_set():
            began_s = self._clock_s()
            try:
                self._one_client(thread)
            except Exception as error:  # noqa: BLE001 - a library's own errors are many, and after any of them it may be wedged
                if self._thread is not thread:
                    return
                self._failed(error)
            if self._clock_s() - began_s > self._source.stalled_s:
                pause_s = _PAUSE_FIRST_S
            self._beat_at_s = self._clock_s() + pause_s
            if self._stop.wait(pause_s):
                return
            pause_s = min(pause_s * 2, self._source.rebuild_max_s)

    def _failed(self, error: Exception) -> None:
        text = str(error) if isinstance(error, CacheError) else f"Kafka fails: {type(error).__name__}: {error}"
        if text != self.error:
            self._log.error("the Kafka client is given up; another one goes on from the committed offsets", error=text)
        with self.member.changed:
            self.error = text
            self.member.changed.notify_all()

    def _one_client(self, thread: threading.Thread) -> None:
        client = self._build(self._group)
        if self._thread is not thread:
            discard(client)
            return
        member = self.member
        try:
            client.subscribe(self._source.topics, member)
            self._anew = ""
            self._rejoins = 0
            while self._thread is thread and not self._stop.is_set() and not self._anew:
                self._turn(client, member)
                if self._thread is thread:
                    self.error = ""
            if self._anew:
                raise StoreError(self._anew)
        except BaseException:
            # From here on nobody hears this client any more; what it had may be somebody else's by now.
            with self._replacing:
                if self._thread is thread:  # else nobody has heard it for long, and all of this is another's
                    self.member = self._new_member(member)
                    self._fail_commits()
            discard(client)  # without a commit: what it handed out and what it knows may not agree
            raise
        if self._thread is thread:
            client.close(_STOP_S)
        else:
            discard(client)

    def _turn(self, client: KafkaClient, member: Member) -> None:
        self._beat_at_s = self._clock_s()
        wanted = member.obey()
        if wanted is not None:
            client.seek(wanted)
        self._send_commits(client, member)
        with member.changed:
            full, roomy = member.buffer.full, member.buffer.roomy
        if full:
            client.pause()
        elif roomy:
            client.resume()
        try:
            records = client.poll(_RECORDS_MAX, _POLL_S)
        except OutOfRange as gap:
            member.missed(str(gap))
            return
        member.keep(records, client.positions())
        self._mind_emptiness(client, member)

    def _send_commits(self, client: KafkaClient, member: Member) -> None:
        with member.changed:
            commits, self._commits = self._commits, []
        for one in commits:
            marks = {part: mark for part, mark in one.marks.items() if part in member.parts}
            if marks:
                client.commit(marks, one.done)
            else:
                one.done("")  # nothing of it is ours any more

    def _fail_commits(self) -> None:
        commits, self._commits = self._commits, []
        for one in commits:
            one.done("the client was given up")

    def _mind_emptiness(self, client: KafkaClient, member: Member) -> None:
        """A join may end with nothing for anybody, and stay so; a member too many has nothing, rightly.

        Or it does not end: partitions were taken, and three minutes later the client had not said who has them.
        """
        waits_since_s, limit_s = member.waits_since_s, max(self._source.stalled_s, 1.5 * self._source.session_s)
        if waits_since_s is not None and self._clock_s() - waits_since_s >= limit_s:
            raise StoreError(f"joining the group has not ended in {limit_s:g} s")
        since_s = member.empty_since_s
        if since_s is None or self._rejoins >= _REJOINS_MAX:
            return
        if self._clock_s() - since_s >= _EMPTY_S * 2**self._rejoins:
            self._rejoins += 1
            member.empty_since_s = self._clock_s()
            self._log.warning("this member got no partition; it joins again", tried=self._rejoins)
            client.rejoin()
