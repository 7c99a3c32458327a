"""What an item costs on a cache server: a real one, filled by the library with items of the workload's sizes.

Redis: `used_memory` with the items, less what it is without them. Memcached: the chunks of its slabs that hold
items, because that is the memory that nothing else can have.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
import numpy as np

from cachelib.errors import CacheError, ConfigError
from loadgen.engine.bench import Bench
from loadgen.engine.share import space_of
from loadgen.engine.site import Advance
from loadgen.plan import RunPlan
from loadgen.targets.library_site import LibrarySite

TIMEOUT_S = 10.0
OWN_MB_MOST = 64.0
"""Of values: what a server of our own is filled with at most."""
ONE_LEVEL = {"strong_share": 0.0, "session_share": 0.0, "bounded_share": 0.0}


class NotMeasured(CacheError):
    """The server did not say what it uses."""


@dataclass(frozen=True, slots=True)
class ItemCost:
    """Means over the items that were measured, bytes. `each`: of memory; `overhead`: beyond key and value."""

    backend: str
    items: int
    each: float
    key: float
    value: float

    @property
    def overhead(self) -> float:
        """What is neither the key nor the value that the application sees."""
        return self.each - self.key - self.value

    def of(self, value_bytes: float) -> float:
        """An item with a value of this size, as far as the mean tells."""
        return self.overhead + self.key + value_bytes


def measure(plan: RunPlan, items: int, advance: Advance) -> ItemCost:
    """On a server of our own. Raises `NotMeasured`, `ConfigError`."""
    target = plan.target
    if target.cache_url:
        raise ConfigError("size fills and empties a cache server of its own: leave out --cache")
    workload = msgspec.structs.replace(plan.workload, keys=min(items, plan.workload.keys))
    plain = msgspec.structs.replace(workload, mix=type(workload.mix)(get=1.0))
    trace = msgspec.structs.replace(plan.trace, rows=items) if plan.trace else None
    own = msgspec.structs.replace(
        plan,
        workload=plain,
        trace=trace,
        target=msgspec.structs.replace(target, kind="library", **ONE_LEVEL, invalidator=False),
        prefill=True,
    )
    space = space_of(own)
    values = space.value_bytes.astype(np.float64)
    if values.sum() > OWN_MB_MOST * 2**20:
        fewer = max(1, int(items * OWN_MB_MOST * 2**20 / values.sum()))
        return measure(plan, fewer, advance)
    with Bench(own, advance) as bench:
        assert isinstance(bench.site, LibrarySite)
        url = bench.site.target.cache_url
        full, count = used(url)
        empty, rest = emptied(url)
    found = count - rest
    if found < 0.9 * space.keys:
        raise NotMeasured(f"of {space.keys:,} items {found:,} stayed in the {target.backend} server: measure fewer")
    names = np.asarray([len(name) for name in space.names[: space.keys]], dtype=np.float64)
    cost = ItemCost(target.backend, found, (full - empty) / found, float(names.mean()), float(values.mean()))
    if cost.overhead <= 0:
        raise NotMeasured(f"{found:,} items are too few to be seen in what {target.backend} uses: measure more")
    return cost


def used(url: str) -> tuple[int, int]:
    """Bytes and items of a server. Raises `NotMeasured`."""
    if urlsplit(url).scheme == "memcached":
        text = ask(url, b"stats slabs\r\n", b"END\r\n")
        size = {int(a): int(b) for a, b in re.findall(r"STAT (\d+):chunk_size (\d+)", text)}
        chunks = {int(a): int(b) for a, b in re.findall(r"STAT (\d+):used_chunks (\d+)", text)}
        return sum(size[one] * chunks[one] for one in chunks), sum(chunks.values())
    text = ask(url, b"INFO memory\r\n", b"\r\n")
    memory = re.search(r"used_memory:(\d+)", text)
    # What connections hold comes and goes, and is no item's.
    clients = re.search(r"mem_clients_normal:(\d+)", text)
    count = re.search(r":(\d+)", ask(url, b"DBSIZE\r\n", b"\r\n"))
    if memory is None or count is None:
        raise NotMeasured(f"{url} does not say how much memory it uses")
    return int(memory[1]) - (int(clients[1]) if clients else 0), int(count[1])


def emptied(url: str) -> tuple[int, int]:
    """The same when it has forgotten everything. Raises `NotMeasured`."""
    if urlsplit(url).scheme == "memcached":
        return 0, 0  # chunks that hold nothing are none of an item's
    ask(url, b"FLUSHALL SYNC\r\n", b"\r\n")
    return used(url)


def ask(url: str, request: bytes, end: bytes) -> str:
    """One question in the server's own protocol."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        answer = b""
        while not answer.endswith(end) or not _whole(answer):
            got = connection.recv(1 << 16)
            if not got:
                break
            answer += got
    return answer.decode(errors="replace")


def _whole(answer: bytes) -> bool:
    """A bulk reply of Redis has come to its end; other replies are one line, or have an end of their own."""
    head, _, body = answer.partition(b"\r\n")
    return not head.startswith(b"$") or len(body) >= int(head[1:]) + 2
