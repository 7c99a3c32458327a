"""No seed breaks a promise: part 1 of 4, see `seeds.py`. `make sim SEED_START=… SEEDS=…` runs more."""

from __future__ import annotations

import pytest

from tests.sim.seeds import hold, starts


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", starts(1))
def test_no_seed_breaks_a_promise(start: int) -> None:
    hold(start)
