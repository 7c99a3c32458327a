"""What others take of the machine while a run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from loadgen.engine.usage import Others

BUSY_S = 0.3


@pytest.fixture
def busy() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            yield psutil.Process(child.pid)
        finally:
            child.kill()


def test_what_is_no_part_of_the_run_is_counted_and_its_own_processes_are_not(busy: psutil.Process) -> None:
    with_it, without = Others([os.getpid(), busy.pid]), Others([os.getpid()])
    for others in (with_it, without):
        others.sample(0.0)
    used, until = busy.cpu_times().user, time.monotonic() + 60
    while busy.cpu_times().user < used + BUSY_S:
        assert time.monotonic() < until, "a busy process got no processor for a minute"
        time.sleep(0.02)
    for others in (with_it, without):
        others.sample(1.0)
    (all_but_it,), (all_of_them,) = with_it.by_second(1), without.by_second(1)
    # The machine's counters and the process's are read one after the other, in steps of ten milliseconds.
    assert all_of_them >= BUSY_S - 0.15
    assert all_of_them - all_but_it >= BUSY_S - 0.15


def test_process_that_has_ended_keeps_what_it_had_used(busy: psutil.Process) -> None:
    others = Others([busy.pid])
    others.sample(0.0)
    busy.kill()
    busy.wait(30)
    others.sample(1.0)
    assert others.by_second(2)[1] == 0.0


def test_nothing_sampled_is_nothing_known() -> None:
    assert Others([os.getpid()]).by_second(3) == [0.0, 0.0, 0.0]
