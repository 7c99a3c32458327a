"""Faults done to real servers under load: what held is told, and what broke is found."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadgen.cli.runs import table_of
from loadgen.mishaps import KINDS
from loadgen.page.trials import page_of_trials
from loadgen.result import LevelFound
from loadgen.trials import Trial, Trials, failures_of
from tests.integration.browser import console, look
from tests.integration.test_loadgen_run import loadgen, needs
from tests.unit.loadgen_results import run

SHORT = ("--keys", "200", "--rate", "60", "--seconds", "6")


@pytest.mark.slow
def test_promises_hold_through_an_old_cache_and_a_doubled_bus(tmp_path: Path) -> None:
    needs("redis")
    out, page = tmp_path / "trials.json", tmp_path / "trials.html"
    faults = ("--fault", "cache-old", "--fault", "bus-duplicated")
    ended = loadgen("consistency", *faults, *SHORT, "--json", str(out), "--html", str(page))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trials = json.loads(out.read_text())["trials"]
    assert [one["fault"] for one in trials] == ["cache-old", "bus-duplicated"]
    for one in trials:
        assert one["failures"] == []
        assert one["settled_s"] is not None
        assert one["compared"] >= 200
        strong = sum(
            found["ratio"]["whole"] for found in one["run"]["consistency"]["stale"] if found["level"] == "strong"
        )
        assert strong > 20
    assert [mark["kind"] for mark in trials[0]["run"]["marks"]] == ["saved", "old"]
    assert [mark["kind"] for mark in trials[1]["run"]["marks"]] == ["doubled", "single"]
    seen = look(page.as_uri(), "--dump-dom")
    assert console(seen) == []
    assert "Every promise held through 2 runs" in seen.stdout


@pytest.mark.slow
def test_without_the_invalidator_plain_writes_are_never_seen(tmp_path: Path) -> None:
    """The check of the check: it must be able to fail."""
    needs("redis")
    out = tmp_path / "trials.json"
    ended = loadgen(
        *(
            "consistency",
            "--fault",
            "none",
            "--no-invalidator",
            "--behind-share",
            "1",
            "--settle",
            "2",
            *SHORT,
            "--json",
            str(out),
        )
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "never agreed with the store" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--fault", "meteor"), "there is no fault 'meteor'"),
        (("--fault", "cache-old", "--backend", "memcached"), "memcached does not"),
        (("--fault", "none", "--target", "null"), "promises none"),
    ],
)
def test_fault_that_cannot_be_tried_is_one_sentence(arguments: tuple[str, ...], says: str) -> None:
    ended = loadgen("consistency", *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr


def broken(kind: str) -> Trial:
    """A trial of that fault in which a promise was broken."""
    return Trial(
        fault=kind,
        text=KINDS[kind].text,
        failures=["3 strong reads were stale"],
        settled_s=None,
        compared=10,
        examples=["rows a: hit version 1, the store has version 2"],
        run=run(seconds=3, fault=False),
    )


def test_broken_promise_is_told_on_the_page() -> None:
    page = page_of_trials(Trials(label="x", backend="redis", trials=[broken("none")]))
    assert "Broken: none: 3 strong reads were stale" in page
    assert "never" in page


def test_names_of_faults_are_whole_in_a_narrow_terminal() -> None:
    narrow = Console(width=80, file=StringIO())
    narrow.print(table_of(Trials(label="x", backend="redis", trials=[broken(kind) for kind in KINDS])))
    assert isinstance(narrow.file, StringIO)
    assert {line.split(" ")[0] for line in narrow.file.getvalue().splitlines()} >= set(KINDS)


def test_stale_strong_reads_and_wrong_values_are_failures() -> None:
    result = run(seconds=3)
    assert failures_of(result) == []
    found = result.consistency
    assert found is not None
    strong = LevelFound("strong", reads=100, stale=2, backwards=0, own_missed=0, beyond=0)
    worse = msgspec.structs.replace(found, wrong=2, levels=[*found.levels, strong])
    assert failures_of(msgspec.structs.replace(result, consistency=worse)) == [
        "2 strong reads were stale",
        "2 reads returned a wrong value",
    ]
