"""HdrHistogram's files, read back by its own package."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from loadgen.cli.root import cli
from loadgen.hdr_files import export_hdr
from loadgen.histogram import DIGITS, HIGHEST_NS, LOWEST_NS
from loadgen.result import NotAResult, save_result
from tests.unit.test_loadgen_result import a_result


def test_a_log_holds_each_second_as_its_own_reader_finds_it(tmp_path: Path) -> None:
    export_hdr([a_result()], tmp_path)
    total = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    reader = HistogramLogReader(str(tmp_path / "get.latency.hlog"), total)
    with closing(reader.input_file):
        found = reader.get_next_interval_histogram()
        assert found.get_total_count() == 3
        assert found.get_value_at_percentile(100) == pytest.approx(90_000_000, rel=0.001)
        assert reader.get_next_interval_histogram() is None


def test_percentiles_are_in_milliseconds_and_records_add_up(tmp_path: Path) -> None:
    written = export_hdr([a_result(), a_result(seed=2)], tmp_path)
    assert {path.name for path in written} == {"get.latency.hgrm", "get.service.hgrm"}
    text = (tmp_path / "get.latency.hgrm").read_text()
    assert "TotalCount     =        6.000" in text
    assert "Max     =       90.046" in text


def test_records_of_different_configurations_do_not_add_up(tmp_path: Path) -> None:
    with pytest.raises(NotAResult, match="do not add up"):
        export_hdr([a_result(), a_result(config_hash="other")], tmp_path)


def test_the_command_writes_them(tmp_path: Path) -> None:
    save_result(tmp_path / "run.json", a_result())
    done = CliRunner().invoke(cli, ["hdr", str(tmp_path / "run.json"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "get.service.hgrm").is_file()
