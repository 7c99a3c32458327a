"""`make demo`: what it shows, and that it says so when the invalidator is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.missing import require

PROMISED = {
    *("backend", "reads", "reads_per_s", "hit_ratio", "p50_ms", "p99_ms", "store_loads", "loads_without_leases"),
    *("strong_reads", "strong_stale", "eventual_stale_ratio", "settled", "visible_p50_ms", "visible_p99_ms"),
    *("catchup_s", "errors"),
}


def demo(folder: Path, **environment: str) -> tuple[int, str, dict[str, Any]]:
    ended = subprocess.run(
        [sys.executable, "-m", "loadgen", "demo"],
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr, json.loads((folder / "build" / "demo.json").read_text())


@pytest.mark.slow
def test_the_demo_survives_the_invalidators_death(tmp_path: Path) -> None:
    require("redis-server")
    code, said, found = demo(tmp_path, DEMO_SECONDS="8")
    assert code == 0, said
    assert set(found) >= PROMISED
    assert found["backend"] == "redis"
    assert (found["strong_stale"], found["outages"], found["settled"]) == (0, 1, True)
    assert found["catchup_s"] is not None
    assert found["visible_p50_ms"] is not None
    assert found["hit_ratio"] > 0.9
    assert "kill -9 of the invalidator" in said


@pytest.mark.slow
def test_without_the_invalidator_the_demo_says_that_the_cache_is_stale(tmp_path: Path) -> None:
    require("memcached")
    code, said, found = demo(tmp_path, DEMO_SECONDS="5", DEMO_BREAK="invalidator", DEMO_BACKEND="memcached")
    assert code == 1, said
    assert found["backend"] == "memcached"
    assert found["settled"] is False
    assert found["differing_keys"] > 5
    assert found["eventual_stale_ratio"] > 0.01
    assert found["strong_stale"] == 0  # the library's own writes are still told by their writers
    assert "keys never agreed with the store" in said
