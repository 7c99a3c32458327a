"""Cache nodes, and the way to them: delays, lost questions and answers, cuts, restarts from nothing or from old data.

A `PlainNode` applies an operation in one moment, as Redis does with its script; `cas_node.py` has a memcached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cachelib.backends.base import Batch, Capability, ConnectionLost, Results
from cachelib.backends.memory import Memory, Snapshot
from cachelib.errors import CacheUnavailable
from cachelib.model import Answer, Hit, Leased, Name, Op, Put, RaiseFloor
from cachelib.proof import Seen, tell
from cachelib.testing.sim.loop import Loop, Process, pause

T = TypeVar("T")
TIMEOUT_US = 250_000
"""After so long a client takes a question for unanswered."""


@dataclass(slots=True)
class Network:
    """How packets fare; shares of all questions."""

    slow: float = 0.0
    slow_us: int = 20_000
    lost: float = 0.0
    """The question or its answer does not arrive."""
    late: float = 0.0
    """The question arrives long after its sender gave up."""
    cut: dict[tuple[str, str], int] = field(default_factory=dict)
    """Client and node that cannot reach each other, until when."""


class Server(Protocol):
    """A cache server."""

    name: str
    down: bool
    start: int
    """Counts how often it was started: connections do not survive that."""

    restarted_us: int
    """When that was last; 0 for never."""

    def evict(self, name: Name) -> None:
        """Drop one item."""

    def restart(self) -> None:
        """Lose everything."""

    def keep(self) -> Any:
        """What a snapshot on disk would hold."""

    def restart_from(self, kept: Any) -> None:
        """Come back with what was kept then."""

    fuse: int
    """It restarts when it has answered so many more questions; 0: it does not."""

    def plant(self, name: Name, raw: bytes) -> None:
        """Hold these bytes."""

    def forget_notes(self) -> None:
        """Evict the notes alone."""

    def peek(self, name: Name) -> bytes | None:
        """The item's bytes, for checks."""

    def held(self) -> list[tuple[Name, bytes]]:
        """All items, for checks."""

    def instance(self) -> str:
        """Which start of the server answers."""

    def backend(self, process: Process, network: Network) -> Any:
        """An `AsyncBackend` for a process."""


class PlainNode(Memory):
    """See the module."""

    def __init__(self, name: str, loop: Loop) -> None:
        super().__init__(clock_ms=lambda: loop.now_us // 1000)
        self.name = name
        self.loop = loop
        self.down = False
        self.start = 1
        self.fuse = self.restarted_us = 0
        self.peek = self.get

    def restart(self, old: Snapshot = ({}, {})) -> None:
        """See `Server`."""
        super().restart(old)
        self.start += 1
        self.restarted_us = self.loop.now_us

    def instance(self) -> str:
        """See `Backend.instance`."""
        return f"{self.name}-{self.start}"

    def forget_notes(self) -> None:
        """See `Server`."""
        self._notes.clear()

    def keep(self) -> Any:
        """See `Server`."""
        return self.snapshot()

    def held(self) -> list[tuple[Name, bytes]]:
        """See `Server`."""
        now_ms = self.loop.now_us // 1000
        return [(name, raw) for name, (raw, until_ms) in self.snapshot()[0].items() if until_ms > now_ms]

    def restart_from(self, kept: Any) -> None:
        """See `Server`."""
        self.restart(kept)

    def backend(self, process: Process, network: Network) -> PlainBackend:
        """See `Server`."""
        return PlainBackend(self, Way(self, process, network))


class Way:
    """From one process to one node and back."""

    def __init__(self, node: Any, process: Process, network: Network) -> None:
        self.node = node
        self.loop: Loop = node.loop
        self._who = process.name
        self._cut = process.name, node.name
        self._network = network
        self._line: int | None = None
        """The one connection there is, by the start of the server that it leads to."""
        self._watchers: list[Seen] = []

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._watchers.append(seen)
        self._line = None

    async def connected(self) -> int:
        """The connection; opened where there is none, and then it is asked first where it leads to.

        One that the server has closed meanwhile is mostly seen to be closed, and another takes its place.
        """
        if self._line is not None and self._line != self.node.start and self.loop.current.random.random() < 0.7:
            self._line = None
        if self._line is None:
            start = await self._travel(lambda: self.node.start, None)
            if self._watchers:
                instance = await self._travel(self.node.instance, start)
                tell(self._watchers, instance)
            self._line = start
        return self._line

    def drop(self, line: int) -> None:
        """It broke: the next call opens another."""
        if self._line == line:
            self._line = None

    async def ask(self, do: Callable[[], T], line: int | None = None) -> T:
        """Have it done by the server, in one moment. Raises `CacheUnavailable`; then nobody knows whether it was.

        `line`: the connection to use; where it broke the question is not asked over another.
        """
        line = await self.connected() if line is None else line
        try:
            return await self._travel(do, line)
        except CacheUnavailable:
            self.drop(line)
            raise

    async def _travel(self, do: Callable[[], T], start: int | None) -> T:
        loop, node, network = self.loop, self.node, self._network
        random = loop.current.random
        chance = random.random()
        there_us = 50 + int(350 * random.random())
        if chance < network.slow:
            there_us = random.randint(400, network.slow_us)
        if chance > 1 - network.late:
            late_us, led_to = random.randint(TIMEOUT_US // 2, 4 * TIMEOUT_US), node.start if start is None else start
            loop.at(late_us, lambda: self._arrive_late(do, led_to))
            await self._give_up()
        lost = random.random() if network.lost else 1.0
        await pause(there_us)
        if lost < network.lost / 2 or node.down or network.cut.get(self._cut, 0) > loop.now_us:
            await self._give_up()
        if start is not None and node.start != start:
            raise ConnectionLost("the connection ended")
        result = do()
        if node.fuse:
            node.fuse -= 1
            if not node.fuse:
                node.restart()
        if lost < network.lost:
            loop.say(self._who, "is not told the answer of that")
            await self._give_up()
        await pause(50 + int(350 * random.random()) if chance > network.slow else there_us)
        if network.cut.get(self._cut, 0) > loop.now_us:
            await self._give_up()
        return result

    def _arrive_late(self, do: Callable[[], Any], start: int) -> None:
        if self.node.start == start and not self.node.down:
            do()

    async def _give_up(self) -> None:
        await pause(TIMEOUT_US)
        raise CacheUnavailable("the node did not answer in time")

    def tell(self, name: Name, op: Op, answer: Any) -> None:
        """Add an operation to the story."""
        if self.loop.story is not None:
            where = f"{self.node.name}:{name.decode(errors='replace')}"
            self.loop.say(self._who, f"{_named(op)} on {where} → {_of(answer)}")


class PlainBackend:
    """An `AsyncBackend` over a `PlainNode`."""

    def __init__(self, node: PlainNode, way: Way) -> None:
        self.capability: Capability = node.capability
        self._node = node
        self._way = way

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        try:
            return await self._way.ask(lambda: self._node.get(name))
        except ConnectionLost:  # asked once more, as the real ones do
            return await self._way.ask(lambda: self._node.get(name))

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return await self._way.ask(lambda: self._node.get_many(names))

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return await self._way.ask(lambda: self._do(name, op, now_ms))

    def _do(self, name: Name, op: Op, now_ms: int) -> Answer:
        answer = self._node.execute(name, op, now_ms)
        self._way.tell(name, op, answer)
        return answer

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`: others come in between."""
        results: Results = []
        for name, op in batch:
            try:
                results.append(await self.execute(name, op, now_ms))
            except CacheUnavailable as error:
                return results + [error] * (len(batch) - len(results))
        return results

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`: one connection, which does not survive a restart."""
        line = await self._way.connected()
        results: Results = []
        for name, op in batch:
            results.append(await self._way.ask(lambda name=name, op=op: self._do(name, op, now_ms), line))  # type: ignore[misc]
        await self._way.ask(lambda: self._node.apply((), notes, now_ms), line)
        return results

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return await self._way.ask(lambda: self._node.read_notes(names))

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return await self._way.ask(self._node.instance)

    async def began_empty(self) -> bool:
        """As the daemon asks it."""
        return await self._way.ask(self._node.began_empty)

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._way.watch(seen)

    async def close(self) -> None:
        """Nothing stays open."""


def _named(op: Op) -> str:
    name = type(op).__name__
    if isinstance(op, Put | RaiseFloor):
        return f"{name} version {op.version} ({op.change})"
    return name


def _of(answer: Any) -> str:
    name = type(answer).__name__
    if isinstance(answer, Hit | Leased):
        return f"{name} (version {answer.item.version}, floor {answer.item.floor})"
    return name
