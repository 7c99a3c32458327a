"""Pinning: what is asked is understood or refused in a sentence that helps, and a child stays where it is put."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from cachelib.errors import ConfigError
from loadgen.cli.options import plan_from
from loadgen.pinning import NOWHERE, Pins, pinned, pins_of
from loadgen.plan import as_config, plan_of

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin")


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with processors 0 to 7."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("eight")
def test_processors_are_numbers_and_ranges() -> None:
    assert pins_of(["cache=3", "generator=0,2-4,7"]) == Pins(cache=(3,), generator=(0, 2, 3, 4, 7))


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["cach=0"], r"'cach': it takes .*did you mean 'cache'"),
        (["cache"], r"names no processors: write it as --pin cache=0,2-3"),
        (["cache="], r"names no processors"),
        (["cache=first"], r"'first' is no processor"),
        (["cache=-1"], r"'-1' is no processor"),
        (["cache=3-1"], r"the range '3-1' is empty"),
        (["cache=6-9"], r"no processor 8 for this process; it may use 0, 1, 2"),
        (["cache=0", "cache=1"], r"cache was pinned before"),
    ],
)
def test_a_pin_that_cannot_be_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        pins_of(texts)


def test_a_system_that_cannot_pin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    with pytest.raises(ConfigError, match="this system cannot pin processes"):
        pins_of(["cache=0"])


@pytest.mark.parametrize(
    ("pin", "settings", "why"),
    [
        ("cache", {"cache": "redis://elsewhere"}, "this run starts no cache .redis://elsewhere."),
        ("cache", {"target": "null"}, "this run starts no cache"),
        ("invalidator", {"invalidator": False}, "starts no invalidator"),
        ("invalidator", {"target": "wire"}, "starts no invalidator"),
    ],
)
def test_only_what_the_run_starts_can_be_pinned(pin: str, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        plan_from({"workload": "ycsb-b", "pin": (f"{pin}={usual()}",)} | settings)


def test_pins_are_in_the_record() -> None:
    plan = plan_from({"workload": "ycsb-b", "pin": (f"generator={usual()}",)})
    assert plan.pins == Pins(generator=(usual(),))
    assert plan_of(as_config(plan)) == plan
    assert plan_from({"workload": "ycsb-b", "pin": ()}).pins == NOWHERE


def test_what_is_started_in_the_block_is_pinned_and_we_are_not_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with pinned((usual(),)):
        told = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert told.strip() == f"{{{usual()}}}"
    assert os.sched_getaffinity(0) == before


def usual() -> int:
    """A processor that is there."""
    return max(os.sched_getaffinity(0))
