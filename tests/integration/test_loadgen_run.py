"""The load generator as its users start it: on real servers, with a real invalidator, for a few seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers.missing import require

SMALL = ("--read-rate", "400", "--keys", "300", "--readers", "2")


def needs(backend: str) -> None:
    require("redis-server" if backend == "redis" else "memcached")


def loadgen(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadgen", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def figures(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_a_short_run_keeps_every_promise(backend: str, tmp_path: Path) -> None:
    needs(backend)
    out = tmp_path / "run.json"
    ended = loadgen("check", "--backend", backend, "--seconds", "5", *SMALL, "--json", str(out))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = figures(out)
    assert found["strong_stale"] == found["strong_backwards"] == found["wrong_values"] == found["lost_writes"] == 0
    assert found["settled"]
    assert found["strong_reads"] > 300
    assert found["writes_behind"] > 20
    assert found["visible_probes"] > 3
    assert found["errors"] == {}


@pytest.mark.slow
def test_a_cache_that_hears_of_nothing_is_found_stale(tmp_path: Path) -> None:
    needs("redis")
    out = tmp_path / "run.json"
    options = ("--target", "forgetful", "--no-invalidator", "--probers", "0", "--seconds", "4")
    ended = loadgen("check", *options, *SMALL, "--json", str(out))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = figures(out)
    # Its writers wrote through the target under test, so what they acknowledged is promised.
    assert found["strong_stale"] > 10
    assert found["eventual_stale"] > 10
    assert found["wrong_values"] == 0
    assert "FAILED" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_kills_break_no_promise(backend: str, tmp_path: Path) -> None:
    needs(backend)
    out = tmp_path / "faults.json"
    ended = loadgen("faults", "--backend", backend, "--seconds", "10", "--json", str(out))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.strip().splitlines()[-1].startswith("PASSED")
    found = figures(out)
    assert sum(found["kills"].values()) >= 2
    assert found["calm"]["strong_hit_ratio"] >= 0.8


def test_an_unknown_setting_is_one_sentence() -> None:
    ended = loadgen("check", "--arrivals", "poison")
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines() == [
        "loadgen: arrivals is 'poison': it takes 'poisson', 'constant', 'closed'; did you mean 'poisson'?"
    ]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_run(end: signal.Signals, tmp_path: Path) -> None:
    needs("redis")
    # A folder of its own: after a kill -9 nobody is left to remove the run's.
    process = subprocess.Popen(
        [sys.executable, "-m", "loadgen", "check", "--seconds", "60", *SMALL],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert any("worker processes are ready" in line for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 5
        process.send_signal(end)
        process.wait(20)
        _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    if end is not signal.SIGKILL:
        assert process.returncode == 130
        assert list(tmp_path.glob("loadgen-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin")
def test_every_process_of_a_pinned_run_stays_on_its_processors() -> None:
    needs("redis")
    usable = sorted(os.sched_getaffinity(0))
    first, last = str(usable[0]), str(usable[-1])
    pins = {"generator": first, "cache": first, "invalidator": last}
    seen: dict[str, set[str]] = {}
    command = [sys.executable, "-m", "loadgen", "run", "--keys", "300", "--rate", "200", "--seconds", "4"]
    with subprocess.Popen(
        [*command, *(word for role, cpu in pins.items() for word in ("--pin", f"{role}={cpu}"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        while run.poll() is None:
            for process in psutil.Process(run.pid).children():
                note_processors(process, seen)
            time.sleep(0.1)
        assert run.stdout is not None
        assert run.returncode == 0, run.stdout.read()
    assert seen == {role: {cpu} for role, cpu in pins.items()}


def note_processors(process: psutil.Process, seen: dict[str, set[str]]) -> None:
    """Of all threads of a process, by its role."""
    roles = {"loadgen.engine.worker": "generator", "invalidator": "invalidator"}
    try:
        words = process.cmdline()
        role = next((roles[word] for word in words if word in roles), "cache" if "redis-server" in words[0] else "")
        lists = [Path(f"/proc/{process.pid}/task/{one.id}/status").read_text() for one in process.threads()]
    except (psutil.Error, OSError, IndexError):
        return  # it begins or ends just now
    if role:
        found = (line for text in lists for line in text.splitlines() if line.startswith("Cpus_allowed_list:"))
        seen.setdefault(role, set()).update(line.split()[1] for line in found)
