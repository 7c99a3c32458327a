"""Who breaks what, and when. Each kind comes once in random order before any comes again."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.servers.process import Server, ServerFailed, ask
from tests.soak.work import Shared
from tests.soak.world import World

STOPPED_S = 30.0
_KILLED_S = (3.0, 12.0)
_TRIES = 6


class Faults:
    """A thread. `failed` is what went wrong in it: then the soak says nothing."""

    def __init__(
        self, world: World, shared: Shared, seed: int, every_s: tuple[float, float], say: Callable[[str], None]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failed = ""
        self._world = world
        self._shared = shared
        self._chance = random.Random(seed)
        self._every_s = every_s
        self._say = say
        self._stop = threading.Event()
        self._broker: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Break nothing more, and mend what is broken."""
        self._stop.set()
        self._thread.join()
        if self._broker is not None:
            self._broker.join()

    def _run(self) -> None:
        kinds = [self._kill, self._join_or_leave, self._kill_broker, self._stop_broker]
        kinds += [self._empty_cache, self._old_cache, self._restart_connect]
        try:
            while not self._stop.is_set():
                self._chance.shuffle(kinds)
                for kind in kinds:
                    if self._stop.wait(self._chance.uniform(*self._every_s)):
                        return
                    kind()
                    self.mend_connect()
        except Exception as error:  # noqa: BLE001 - told in the verdict
            self.failed = _in_a_line(error)

    def _did(self, what: str) -> None:
        self.counts[what] += 1
        self._say(what)

    # --- the invalidator ---------------------------------------------------------------------

    def _kill(self) -> None:
        member = self._world.members[0]
        member.kill()
        self._did("invalidator killed")
        self._stop.wait(self._chance.uniform(0.0, 3.0))
        member.start()

    def _join_or_leave(self) -> None:
        other = self._world.members[1]
        if not other.wanted:
            other.start()
            self._did("member joined")
        elif self._chance.random() < 0.5:
            other.kill()
            self._did("member killed for good")
        elif other.leave():
            self._did("member left")
        else:
            raise RuntimeError(f"the member that was told to leave did not end well: {other.last_words()}")

    # --- what is in front of it --------------------------------------------------------------

    def _kill_broker(self) -> None:
        self._one_broker("broker killed", "kill", self._chance.uniform(*_KILLED_S))

    def _stop_broker(self) -> None:
        self._one_broker("broker stopped", "pause", STOPPED_S)

    def _one_broker(self, what: str, how: str, seconds: float) -> None:
        """At most one of three is away at a time; other things break meanwhile."""
        if self._broker is not None:
            self._broker.join()
        broker = self._chance.choice(self._world.kafka.brokers)

        def away() -> None:
            getattr(broker, how)()
            self._did(what)
            self._stop.wait(seconds)
            try:
                broker.resume() if how == "pause" else self._start(broker)
                time.sleep(5)  # until it is in sync again: two of three have to be
            except Exception as error:  # noqa: BLE001 - told in the verdict
                self.failed = _in_a_line(error)

        self._broker = threading.Thread(target=away, daemon=True)
        self._broker.start()

    def _restart_connect(self) -> None:
        self._world.debezium.kill()
        self._did("Connect restarted")
        self._start(self._world.debezium)

    def _start(self, server: Server) -> None:
        """Connect gives up where a broker does not answer, and a busy machine is slow: then somebody tries again."""
        for tried in range(_TRIES):
            try:
                server.start()
                return
            except ServerFailed:
                self.counts[f"{server.name} did not start"] += 1
                if tried == _TRIES - 1:
                    raise

    def mend_connect(self) -> None:
        """A task that failed stays so until somebody starts it again; asked for between the faults."""
        try:
            self._world.debezium.answers()
        except ServerFailed:
            self.counts["Connect's task failed by itself"] += 1
            self._world.debezium.kill()
            self._start(self._world.debezium)
        except OSError:
            pass  # it does not answer for a moment

    # --- the cache ---------------------------------------------------------------------------

    def _empty_cache(self) -> None:
        redis = self._world.redis
        redis.kill()
        (redis.folder / "dump.rdb").unlink(missing_ok=True)
        redis.start()
        self._shared.cache_starts.value += 1
        self._did("Redis restarted empty")

    def _old_cache(self) -> None:
        redis = self._world.redis
        if not ask(redis.port, b"SAVE\r\n", timeout_s=20).startswith(b"+OK"):
            raise RuntimeError("Redis did not save")
        self._stop.wait(self._chance.uniform(1.0, 5.0))
        redis.kill()
        redis.start()
        self._shared.cache_starts.value += 1
        self._did("Redis restarted with an old RDB")


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
