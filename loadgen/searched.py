"""The record of a search for capacity: what its JSON file holds, and what its report is drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from loadgen.probing import End
from loadgen.result import Host, NotAResult, RunResult

SEARCH_SCHEMA = "loadgen-search/1"


class ProbeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One probe. Latency is of all operations, from the intended start; shares are from 0 to 1."""

    phase: str
    """ramp, bisect, confirm, climb or again."""
    rate: float
    """Operations a second that were offered."""
    seconds: float
    achieved: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    service_p99_ms: float
    lag_p99_ms: float
    """How late the generator itself was."""
    others_cores: float = 0.0
    """Processors that other work used."""
    hit_ratio: float
    errors: float
    origin_qps: float | None
    stale_ratio: float | None
    visible_p99_ms: float | None
    windows: list[str]
    """How each ended: held, missed, invalid (the generator was late) or disturbed (others had the processors)."""
    missed: dict[str, int]
    """How often each clause was missed."""
    verdict: str
    """held, missed, invalid, disturbed, or undecided where the vote went on."""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One search. `rate` held in two long probes in a row, `above` was refuted: between them is the knee."""

    format: str = SEARCH_SCHEMA
    label: str
    objective: str
    started: str
    host: Host
    versions: dict[str, str]
    seed: int
    config: dict[str, Any]
    config_hash: str
    end: str
    """How it ended: one of `probing.End`."""
    says: str
    """The finding in a sentence."""
    rate: float
    above: float | None
    """None: nothing was refuted."""
    binding: str
    """The clause that gives way first; nothing where none did."""
    low: float = 0.0
    high: float | None = None
    """What the votes of all probes together leave open (`evidence.py`); 0 and None: nothing bounds it."""
    ceiling: float
    """What the generator alone reaches, operations a second; no probe was above `share` of it."""
    share: float
    probes: list[ProbeLine]
    confirmed: RunResult | None = None
    """The run that confirmed the rate, whole."""
    refuted: RunResult | None = None
    """The run just above it that did not hold, whole."""

    @property
    def found(self) -> bool:
        """A rate was confirmed, and the one just above it refuted."""
        return self.end == End.FOUND.value


def save_search(path: Path, result: SearchResult) -> None:
    """Write it as JSON. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load_search(path: Path) -> SearchResult:
    """Raises `NotAResult`, or `OSError`."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=SearchResult)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NotAResult(f"{path} is not the record of a search: {error}") from error
    if result.format != SEARCH_SCHEMA:
        raise NotAResult(f"{path} is {result.format!r}, this program reads {SEARCH_SCHEMA!r}: make it again")
    return result
