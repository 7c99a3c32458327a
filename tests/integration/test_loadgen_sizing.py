"""What an item costs on real servers, and what leases are worth on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen.herd import HerdPlan, herd
from loadgen.memory import measure
from loadgen.plan import RunPlan, TargetPlan
from loadgen.workloads.sizes import Constant
from loadgen.workloads.workload import Workload
from tests.integration.browser import console, look
from tests.integration.test_loadgen_run import loadgen, needs


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_larger_values_cost_what_they_are_larger(backend: str) -> None:
    needs(backend)

    def each(value_bytes: int) -> float:
        workload = Workload(name="one", keys=1500, value_bytes=Constant(value_bytes))
        plan = RunPlan(workload=workload, target=TargetPlan(backend="redis" if backend == "redis" else "memcached"))
        cost = measure(plan, 1500, lambda *_: None)
        assert cost.items == 1500
        assert cost.value == value_bytes
        return cost.each

    small, large = each(100), each(1100)
    # Allocators and slabs round up, Redis's by an eighth or less, memcached's slabs by a quarter.
    assert 900 < large - small < 1400
    assert small > 150


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_leases_hold_a_herd_back(backend: str) -> None:
    needs(backend)
    plan = HerdPlan(backend=backend, readers=16, caches=4, seconds=2.0, lost_s=0.5, origin_ms=150.0)
    result = herd(plan, lambda _: None)
    assert result.leases.losses >= 2
    # One load for each loss; two where a loss came while the one before was still being loaded.
    assert result.leases.loads_per_loss <= 2
    assert result.without.loads_per_loss_max > 3
    assert result.fewer > 2
    assert result.leases.errors == result.without.errors == {}


@pytest.mark.slow
def test_size_command_tells_what_to_buy(tmp_path: Path) -> None:
    needs("redis")
    out, page = tmp_path / "size.json", tmp_path / "size.html"
    options = ("--keys", "2000", "--items", "1000", "--requests", "20000", "--json", str(out), "--html", str(page))
    ended = loadgen("size", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(out.read_text())
    assert found["items_measured"] == 1000
    assert found["overhead_bytes"] > 0
    assert [one["bytes"] for one in found["choices"]] == sorted(one["bytes"] for one in found["choices"])
    seen = look(page.as_uri(), "--dump-dom")
    assert console(seen) == []
    assert "How large a cache?" in seen.stdout


def test_size_leaves_other_peoples_servers_alone() -> None:
    ended = loadgen("size", "--cache", "redis://localhost:6379/0")
    assert ended.returncode == 2
    assert "of its own" in ended.stderr
