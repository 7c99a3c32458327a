"""The commands that measure, on real servers for a few seconds: what they write, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loadgen.schemas import file_of
from tests.integration.test_loadgen_run import loadgen, needs

# A busy machine is late: what these runs show is not speed, so the generator may be.
EASY = ("--keys", "300", "--lag-max-ms", "60000", "--warmup", "1", "--seconds", "3")


def record(path: Path, name: str = "run") -> Any:
    found = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(file_of(name).read_text())).validate(found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "code", "says"),
    [("errors<50% & get.p50<60s", 0, "PASSED"), ("get.p50<1us & errors<50%", 1, "FAILED: get.p50<1us was missed")],
)
def test_run_ends_by_its_objective(objective: str, code: int, says: str, tmp_path: Path) -> None:
    needs("redis")
    out, page, lines = tmp_path / "run.json", tmp_path / "run.html", tmp_path / "run.csv"
    files = ("--json", str(out), "--html", str(page), "--csv", str(lines))
    ended = loadgen("run", "-r", "100", *EASY, "-o", objective, *files)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert says in ended.stdout
    found = record(out)
    assert found["operations"]["get"]["achieved"] > 50
    assert found["consistency"]["ratio"]["whole"] > 50
    assert set(found["servers"]) == {"redis", "invalidator"}
    assert "How slow are the slow ones?" in page.read_text()
    assert len(lines.read_text().splitlines()) == 1 + 4


@pytest.mark.slow
def test_run_whose_generator_was_late_says_nothing() -> None:
    needs("redis")
    late = ("--target", "null", "-r", "300000", "--seconds", "2", "--lag-max-ms", "0.000001")
    ended = loadgen("run", *late, "-o", "errors<1%")
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "INVALID" in ended.stdout


@pytest.mark.slow
def test_trace_is_written_and_replayed_and_sized(tmp_path: Path) -> None:
    needs("redis")
    trace, out = tmp_path / "trace.csv", tmp_path / "replay.json"
    made = loadgen("synthesize", str(trace), "-w", "uniform", "--keys", "1500", "--requests", "3000")
    assert made.returncode == 0, made.stderr
    rows = len(trace.read_text().splitlines())
    lenient = ("--lag-max-ms", "60000", "--warmup", "0")
    ended = loadgen("replay", str(trace), "--rows", "300", "--at-rate", "100", *lenient, "--json", str(out))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = record(out)
    assert sum(one["offered"] for one in found["operations"].values()) == 300
    assert 2 <= found["seconds"] <= 4
    sized = loadgen("size", "--trace", str(trace), "--items", "2000", "--json", str(tmp_path / "size.json"))
    assert sized.returncode == 0, sized.stdout + sized.stderr
    assert json.loads((tmp_path / "size.json").read_text())["requests"] == rows


@pytest.mark.slow
def test_search_keeps_every_probe(tmp_path: Path) -> None:
    """On a busy machine nobody knows what it finds: that it ends, and how, and what it has kept."""
    out = tmp_path / "search.json"
    options = ("--target", "null", "--start", "600", "--ceiling", "1000", "--window", "1", "--warmup", "0")
    options += ("--others-max", "1")
    ended = loadgen("search", "all.p50<1s & errors<1%", *options, "--json", str(out))
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "this generator may offer no more" in ended.stdout
    found = record(out, "search")
    assert found["end"] == "generator"
    assert found["rate"] == pytest.approx(700)
    assert max(probe["rate"] for probe in found["probes"]) <= 700 * 1.0001
    assert found["confirmed"]["seconds"] == 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "nowhere.csv"), "there is no trace nowhere.csv"),
        (("synthesize", "out.csv", "--cluster", "3"), "give both, or neither"),
        (("run", "-o", "vis.p99<1s", "--target", "null", "--seconds", "1", "--lag-max-ms", "60000"), "did not measure"),
        (("herd", "--readers", "2", "--caches", "3"), "no idle cache"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: tuple[str, ...], says: str) -> None:
    ended = loadgen(*arguments)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert says in ended.stderr
