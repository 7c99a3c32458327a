"""The cache's own protocol, spoken directly: what the tier itself can do.

One thread and a few connections. All that is due is sent with one write for each connection, and
whatever has come back is taken at once: system calls, not bytes, are what a small request costs.
"""

from __future__ import annotations

import select
import socket
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from loadgen.engine.lane import Lane, Outcome
from loadgen.engine.pace import CHUNK, Shift, keys_of, now_ns
from loadgen.plan import RunPlan
from loadgen.targets.wire_protocols import MISS, Dialect, Reply, dialect_of
from loadgen.workloads.draws import Operations
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.values import Values
from loadgen.workloads.workload import DELETE, GET, INSERT, LONE_GET, MULTIGET, RMW, SCAN, SET

RECEIVE_BYTES = 1 << 18
CONNECT_S = 5.0
WAIT_S = 0.05
NOBODY = -(1 << 62)
"""Whose reply it is, where no operation waits for it: a fill."""
PORTS = {"redis": 6379, "memcached": 11211}


class Line:
    """One connection: what is to be sent, and who waits for which reply."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        parts = urlsplit(url)
        address = (parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme])
        self.socket = socket.create_connection(address, timeout=CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.out: list[bytes] = []
        self.unsent = b""
        self.waiting: deque[int] = deque()
        """Places of operations, in the order of their replies; `~place`: one that goes on after this reply."""
        self.replies = dialect.replies()

    def flush(self) -> None:
        """Send what can be sent."""
        data = self.unsent + b"".join(self.out)
        self.out.clear()
        if data:
            try:
                self.unsent = data[self.socket.send(data) :]
            except BlockingIOError:
                self.unsent = data


class Wire:
    """See `Target`."""

    def __init__(self, plan: RunPlan, space: KeySpace, operations: Operations) -> None:
        url = plan.target.cache_url
        self._dialect = dialect_of(url)
        self._names = [name.encode() for name in space.names]
        self._gets = [self._dialect.get(name) for name in self._names]
        self._values, self._ttl = Values(space), space.ttl_s.tolist()
        self._fill = plan.target.fill
        self._lane = Lane(operations, in_order=False)
        self.lanes: Sequence[Lane] = [self._lane]
        self._lines = [Line(url, self._dialect) for _ in range(plan.target.connections)]
        self._by_socket = {line.socket: line for line in self._lines}
        self._kinds = operations.kind
        self._many: dict[int, list[int]] = {}
        """Of operations of several keys: how many replies are missing, and the outcome when none is."""
        self._keys: dict[int, Any] = {}
        """Of operations under way that go on after their reply, or may be followed by a fill."""

    # --- the loop -----------------------------------------------------------------------------------

    def run(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """See `Target.run`."""
        if shift.wait_until(start_ns) < 0:
            return
        sent, count = 0, len(self._lane.operations)
        at_ns = self._lane.at_ns
        while now_ns() < shift.deadline_ns:
            now = now_ns()
            if closed:
                idle = sum(1 for line in self._lines if not line.waiting) if now < end_ns else 0
                due = min(count, sent + idle)
            else:
                due = int(np.searchsorted(at_ns, now, side="right"))
            due = min(due, sent + CHUNK)
            if due > sent:
                self._send(sent, due, closed=closed)
                sent = due
            under_way = any(line.waiting for line in self._lines)
            over = sent == count or (closed and now >= end_ns)
            if over and not under_way:
                return
            next_ns = int(at_ns[sent]) if not closed and sent < count else now + int(WAIT_S * 1e9)
            self._receive(max(0.0, min((next_ns - now_ns()) / 1e9, WAIT_S)))

    def _send(self, first: int, last: int, *, closed: bool) -> None:
        lines = [line for line in self._lines if not line.waiting] if closed else self._lines
        keys, kinds = keys_of(self._lane, first, last), self._kinds[first:last].tolist()
        gets, remembered, many = self._gets, self._keys if self._fill else {}, len(lines)
        for place, kind, key in zip(range(first, last), kinds, keys, strict=True):
            line = lines[place % many]
            if kind == GET:
                line.out.append(gets[key])
                line.waiting.append(place)
                remembered[place] = key
            else:
                self._ask(line, place, kind, key)
        self._lane.start_ns[first:last] = array("q", [now_ns()]) * (last - first)
        for line in lines:
            line.flush()

    def _ask(self, line: Line, place: int, kind: int, key: Any) -> None:
        """Anything but a plain get."""
        match kind:
            case _ if kind == LONE_GET:
                line.out.append(self._gets[key])
                line.waiting.append(place)
            case _ if kind in (SET, INSERT):
                line.out.append(self._set(key))
                line.waiting.append(place)
            case _ if kind == DELETE:
                line.out.append(self._dialect.delete(self._names[key]))
                line.waiting.append(place)
            case _ if kind == RMW:
                line.out.append(self._gets[key])
                line.waiting.append(~place)
                self._keys[place] = key
            case _ if kind in (MULTIGET, SCAN):
                request, replies = self._dialect.many([self._names[one] for one in key])
                line.out.append(request)
                line.waiting.extend([place] * replies)
                self._many[place] = [replies, int(Outcome.MANY)]

    def _set(self, key: int) -> bytes:
        return self._dialect.set(self._names[key], self._values.of(key), self._ttl[key])

    # --- replies ------------------------------------------------------------------------------------

    def _receive(self, timeout_s: float) -> None:
        blocked = [line.socket for line in self._lines if line.unsent]
        readable, writable, _ = select.select(list(self._by_socket), blocked, [], timeout_s)
        for one in writable:
            self._by_socket[one].flush()
        for one in readable:
            line = self._by_socket[one]
            data = one.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the cache server closed the connection")
            self._took(line, data, now_ns())

    def _took(self, line: Line, data: bytes, now: int) -> None:
        ends, outcomes, waiting, fill = self._lane.end_ns, self._lane.outcome, line.waiting, self._keys
        many = self._many
        for reply in line.replies.feed(data):
            place = waiting.popleft()
            if place >= 0 and place not in many and reply.__class__ is int:
                ends[place] = now
                outcomes[place] = reply
                key = fill.pop(place, None)
                if reply == MISS and key is not None:
                    line.out.append(self._set(key))
                    waiting.append(NOBODY)
            else:
                self._other(line, place, reply, now)
        if line.out:
            line.flush()

    def _other(self, line: Line, place: int, reply: Reply, now: int) -> None:
        """The reply of a fill is nobody's; a modify goes on; one of several is counted; an error is an outcome."""
        if place == NOBODY:
            return
        if place < 0 and ~place in self._keys:
            line.out.append(self._set(self._keys.pop(~place)))
            line.waiting.append(~place)
            return
        lane = self._lane
        outcome = lane.failed(reply) if isinstance(reply, str) else int(Outcome.WRITTEN)
        if place in self._many:
            outcome = self._count(place, reply)
            if outcome == Outcome.UNFINISHED:
                return
        lane.outcome[place] = outcome
        lane.end_ns[place] = now

    def _count(self, place: int, reply: Reply) -> int:
        """One reply of an operation of several keys; its outcome, if that was the last."""
        second, under_way = int(self._lane.operations.at_s[place]), self._many[place]
        if isinstance(reply, str):
            under_way[1] = self._lane.failed(reply)
        else:
            for outcome in reply if isinstance(reply, list) else [reply]:
                self._lane.sources[second, outcome] += 1
        under_way[0] -= 1
        if under_way[0]:
            return Outcome.UNFINISHED
        return self._many.pop(place)[1]

    def logs(self) -> Mapping[str, bytes]:
        """See `Target.logs`: there is no oracle."""
        return {}

    def close(self) -> None:
        """See `Target.close`."""
        for line in self._lines:
            line.socket.close()
