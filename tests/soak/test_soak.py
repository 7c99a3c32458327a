"""Two minutes of the soak as a test: `pytest -m soak`. The whole of it is `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.servers.maven import jars

SECONDS = "120"


@pytest.mark.server
@pytest.mark.soak
@pytest.mark.timeout(600)
def test_nothing_is_stale_or_lost_after_two_minutes_of_faults() -> None:
    jars()
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak"],
        env={**os.environ, "SOAK_SECONDS": SECONDS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
