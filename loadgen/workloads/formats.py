"""The published formats of traces: Twitter's cache-trace and Meta's key-value cache samples.

Both name operations of their own; what a cache is asked by them is a get, a set or a delete.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from cachelib.errors import ConfigError
from loadgen.workloads.trace import BadTrace, Request, Trace, trace_of
from loadgen.workloads.workload import DELETE, GET, SET

Format: TypeAlias = Literal["twitter", "meta"]

_WRITES = ("set", "add", "replace", "cas", "append", "prepend", "incr", "decr")
TWITTER: Mapping[str, int] = {"get": GET, "gets": GET, "delete": DELETE} | dict.fromkeys(_WRITES, SET)
META: Mapping[str, int] = {"GET": GET, "GET_LEASE": GET, "SET": SET, "SET_LEASE": SET, "DELETE": DELETE}
META_COLUMNS = ("op_time", "key", "key_size", "op", "op_count", "size", "ttl")


def twitter(lines: Iterator[str]) -> Iterator[Request]:
    """Without a header: timestamp, key, key size, value size, client, operation, TTL."""
    for at, key, key_size, value_size, _, operation, ttl in csv.reader(lines):
        yield Request(float(at), key, TWITTER[operation], int(key_size), int(value_size), int(ttl))


def meta(lines: Iterator[str]) -> Iterator[Request]:
    """With a header, by which columns are found: samples differ in their order. `size` of a miss is 0."""
    rows = csv.DictReader(lines)
    missing = [name for name in META_COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(f"the header has no column {missing[0]!r}")
    for row in rows:
        yield Request(
            float(row["op_time"]),
            row["key"],
            META[row["op"]],
            int(row["key_size"]),
            int(row["size"]),
            int(row["ttl"]),
            int(row["op_count"]),
        )


READERS: Mapping[str, Callable[[Iterator[str]], Iterator[Request]]] = {"twitter": twitter, "meta": meta}


def read_trace(path: Path, form: Format, most: int | None = None) -> Trace:
    """`most`: rows, from the beginning.

    Raises:
        BadTrace: a row cannot be read; file and line are named.
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"there is no trace {path}")
    with path.open(newline="", encoding="utf-8") as file:
        return trace_of(_rows(path, READERS[form](file), most))


def _rows(path: Path, requests: Iterator[Request], most: int | None) -> Iterator[Request]:
    line = 0
    while most is None or line < most:
        line += 1
        try:
            request = next(requests, None)
        except (ValueError, KeyError) as error:
            raise BadTrace(f"{path}: row {line} cannot be read ({type(error).__name__}: {error})") from error
        if request is None:
            return
        yield request
