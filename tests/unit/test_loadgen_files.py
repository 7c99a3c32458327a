"""Records as files: JSON that its committed schema accepts, CSV, and what the commands make of them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import jsonschema
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from loadgen.cli.root import cli
from loadgen.engine.crew import Progress
from loadgen.files import COLUMNS, load_any, save
from loadgen.live import MEASURES, Metrics, Watch
from loadgen.result import NotAResult
from loadgen.schemas import RECORDS, file_of, text_of
from tests.unit.loadgen_results import run, search

BEAT = Progress(at_s=3.0, length_s=10.0, done=600, offered=2000, errors=2, late_ms=0.5, p99_ms=4.0, cores=0.7)


@pytest.mark.parametrize("name", RECORDS)
def test_committed_schema_is_that_of_the_code(name: str) -> None:
    assert file_of(name).read_text() == text_of(name), "python -m loadgen.schemas writes it anew"


@pytest.mark.parametrize(("name", "record"), [("run", run(seconds=5)), ("run", run(fault=True)), ("search", search())])
def test_record_is_what_its_schema_says(name: str, record: Any, tmp_path: Path) -> None:
    save(record, tmp_path / "record.json", None, None)
    document = json.loads((tmp_path / "record.json").read_text())
    schema = json.loads(file_of(name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    del document["objective" if name == "search" else "windows"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    for record in (run(seconds=3), search(whole=False)):
        save(record, tmp_path / "record.json", None, None)
        assert load_any(tmp_path / "record.json") == record


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "something/9"}', '{"format": "loadgen-result/1"}'])
def test_what_is_no_record_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(NotAResult, match=r"record\.json"):
        load_any(path)


def test_csv_has_a_line_a_second_and_one_a_probe(tmp_path: Path) -> None:
    save(run(seconds=4), None, tmp_path / "run.csv", None)
    rows = list(csv.DictReader((tmp_path / "run.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["phase"] for row in rows] == ["warmup"] * 2 + ["measured"] * 4
    assert all(float(row["p99_ms"]) > float(row["p50_ms"]) > 0 for row in rows)
    save(search(), None, tmp_path / "search.csv", None)
    probes = list(csv.DictReader((tmp_path / "search.csv").read_text().splitlines()))
    assert [probe["verdict"] for probe in probes].count("missed") == 4
    assert probes[4]["missed"] == "get.p99<5ms 3"


# --- commands ------------------------------------------------------------------------------------


def loadgen(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(cli, arguments)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


def saved(tmp_path: Path, name: str, record: Any) -> str:
    path = tmp_path / name
    save(record, path, None, None)
    return str(path)


def test_comparison_ends_with_1_where_something_got_worse(tmp_path: Path) -> None:
    a = saved(tmp_path, "a.json", run(seconds=20))
    b = saved(tmp_path, "b.json", run(seed=2, seconds=20))
    slow = saved(tmp_path, "slow.json", run(seed=2, seconds=20, median_ms=1.2))
    code, said = loadgen("compare", a, b)
    assert (code, "PASSED" in said) == (0, True)
    code, said = loadgen("compare", a, slow)
    assert code == 1
    assert "FAILED: worse by more than 5%: get.p50" in said
    assert loadgen("compare", slow, a)[0] == 0
    assert loadgen("compare", a, slow, "--tolerance", "2")[0] == 0


def test_comparison_of_what_says_nothing_ends_with_3(tmp_path: Path) -> None:
    a = saved(tmp_path, "a.json", run(seconds=10))
    b = saved(tmp_path, "b.json", run(seconds=10, invalid=["worker 1 was lost"]))
    code, said = loadgen("compare", a, b)
    assert (code, "worker 1 was lost" in said) == (3, True)


def test_confirmed_run_of_a_search_is_compared(tmp_path: Path) -> None:
    a = saved(tmp_path, "a.json", search())
    assert loadgen("compare", a, a)[0] == 0
    code, said = loadgen("compare", a, saved(tmp_path, "b.json", search(whole=False)))
    assert code == 3
    assert "confirmed no rate" in said


def test_report_is_made_of_a_record(tmp_path: Path) -> None:
    code, said = loadgen("report", saved(tmp_path, "a.json", run(seconds=5)))
    assert code == 0
    assert "a.html" in said
    assert "How slow are the slow ones?" in (tmp_path / "a.html").read_text()


def test_presets_are_listed_and_shown() -> None:
    code, said = loadgen("presets")
    assert code == 0
    assert "ycsb-a" in said
    code, said = loadgen("presets", "ycsb-a")
    assert json.loads(said)["mix"]["get"] == 0.5
    assert loadgen("presets", "ycsb-z")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("search", "get.p99<5"), "say of what, as 5ms"),
        (("search", "errors<1%", "--target", "nul"), "null"),
        (("search", "errors<1%", "--workload", "ycsb"), "did you mean 'ycsb-"),
        (("search", "errors<1%", "--start", "900", "--ceiling", "1000", "--target", "null"), "70%"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(arguments: tuple[str, ...], says: str) -> None:
    code, said = loadgen(*arguments)
    assert code == 2
    assert says in said


# --- while it runs ---------------------------------------------------------------------------------


def test_metrics_while_it_runs_are_what_prometheus_reads() -> None:
    with Metrics(0) as metrics:
        names = {family.name for family in scraped(metrics.port)}
        metrics.tell(BEAT)
        values = {sample.name: sample.value for family in scraped(metrics.port) for sample in family.samples}
    assert names == {name.removesuffix("_total") for name in MEASURES}
    assert values["loadgen_operations_done_total"] == 600
    assert values["loadgen_latency_p99_seconds"] == 0.004
    assert len(values) == len(MEASURES)


def scraped(port: int) -> list[Any]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


@pytest.mark.parametrize("terminal", [True, False])
def test_live_view_on_a_terminal_and_elsewhere(terminal: bool) -> None:
    console = Console(force_terminal=terminal, record=True, width=120, file=sys.stderr)
    with Watch(console, "loadgen run") as watch:
        watch.say("the invalidator was killed")
        for at_s in (1.0, 2.5, 3.0):
            watch.tick(Progress(at_s, 10.0, int(200 * at_s), 2000, 0, 0.5, 4.0, 0.7))
    assert "the invalidator was killed" in console.export_text()
