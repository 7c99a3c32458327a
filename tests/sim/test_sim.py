"""The simulation: no seed breaks a promise, and a seed is the same run wherever it runs.

`make sim SEED_START=… SEEDS=…` runs more; `python -m tests.sim --tell SEED` tells the story of one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from cachelib.testing.sim import Runner, plan_of, simulation
from tests.sim.__main__ import chunk, tell
from tests.sim.daemon import daemon_of

SEEDS = 4_000
CHUNK = 400


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_promise(start: int) -> None:
    counts, failed = chunk(range(start, start + CHUNK))
    assert not failed, "\n".join([*map(str, failed), *tell(failed[0][0])])
    assert counts["checks"] > 5 * CHUNK


def digest(seeds: range) -> str:
    said = hashlib.sha256()
    with simulation("invalidator"):
        for seed in seeds:
            outcome = Runner(daemon_of).run(plan_of(seed), told=True)
            said.update(repr(outcome).encode())
    return said.hexdigest()


def test_a_seed_is_replayed_exactly_in_another_process() -> None:
    code, here = "from tests.sim.test_sim import digest; print(digest(range(60)))", digest(range(60))
    for hashing in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == here
