"""A seed is the same run wherever it runs; that none breaks a promise, `test_seeds_*.py` show.

`make sim SEED_START=… SEEDS=…` runs more; `python -m tests.sim --tell SEED` tells the story of one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from cachelib.testing.sim import Runner, plan_of, simulation
from tests.sim.daemon import daemon_of


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
