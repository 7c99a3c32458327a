"""Traces in Twitter's format, made from a workload, or from a cluster's published statistics."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from cachelib.errors import ConfigError
from loadgen.arrivals import FLAT, Starts
from loadgen.workloads.draws import Draws
from loadgen.workloads.formats import TWITTER
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.popularity import Zipfian
from loadgen.workloads.sizes import Constant, Table
from loadgen.workloads.workload import DELETE, GET, LONE_GET, MULTIGET, SCAN, Mix, Workload

CLIENTS = 32
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NAMES = {GET: "get", MULTIGET: "get", SCAN: "get", LONE_GET: "get", DELETE: "delete"}
"""What else there is, is a set."""


def write_twitter(path: Path, workload: Workload, *, requests: int, rate_per_s: float, seed: int = 1) -> int:
    """About so many rows; how many there are. Times are whole seconds, as in the published traces."""
    space = KeySpace(workload, seed)
    # A twentieth more than asked: arrivals are random, and the rest is cut off.
    seconds = requests / rate_per_s * 1.05 + 1
    starts = Starts(workload.gaps, FLAT, rate_per_s, seconds, seed=seed, worker=0, workers=1).all()[:requests]
    operations = Draws(space, seed=seed, worker=0, workers=1).at(starts)
    clients = np.random.default_rng([seed, 4]).integers(1, CLIENTS + 1, len(starts))
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        for place, (at_s, kind) in enumerate(zip(starts.tolist(), operations.kind.tolist(), strict=True)):
            for key in operations.keys[operations.first[place] : operations.first[place + 1]].tolist():
                name, size = NAMES.get(kind, "set"), int(space.value_bytes[key])
                life = int(space.ttl_s[key]) if name == "set" else 0
                write((int(at_s), space.names[key], len(space.names[key]), size, clients[place], name, life))
                rows += 1
    return rows


def cluster_of(statistics: Path, number: int, keys: int = 100_000) -> Workload:
    """The workload of one of Twitter's clusters, from the table that is published with the traces
    (`stat/2020Mar.md`). Raises `ConfigError` where it has no such cluster, or no figures of it.
    """
    if not statistics.is_file():
        raise ConfigError(f"there is no table of statistics {statistics}")
    for line in statistics.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == f"cluster{number}":
            return _workload(number, cells, keys)
    raise ConfigError(f"{statistics} has no cluster {number}")


def _workload(number: int, cells: list[str], keys: int) -> Workload:
    key_bytes, value_bytes, lives, operations, alpha = (cells[at] for at in (3, 4, 9, 12, 13))
    if not {"N/A", "NA", ""}.isdisjoint((key_bytes, value_bytes, alpha)):
        raise ConfigError(f"cluster {number} was published without its figures: choose another")
    weights = {"get": 0.0, "set": 0.0, "delete": 0.0}
    for name, share in re.findall(r"(\w+):([\d.]+)", operations):
        kind = TWITTER[name]
        weights["get" if kind == GET else "delete" if kind == DELETE else "set"] += float(share)
    ttl = [(round(float(life) * UNITS_S[unit]), float(share)) for life, unit, share in _LIFE.findall(lives)]
    return Workload(
        name=f"tw-c{number}",
        source=f"Twitter's cluster {number}, statistics of March 2020 (CC BY 4.0); sizes are the means",
        keys=keys,
        popularity=Zipfian(exponent=float(alpha)),
        mix=Mix(**weights),
        key_bytes=Constant(int(key_bytes)),
        value_bytes=Constant(int(value_bytes)),
        ttl_s=Table(ttl) if ttl else Constant(3600),
    )


_LIFE = re.compile(r"([\d.]+)([smhd]):([\d.]+)")
