"""The report in a real browser: what it shows in light, dark and on paper, and that it asks nobody for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from loadgen.compare import compare
from loadgen.files import report_of
from loadgen.page.checked import page_of_check
from loadgen.page.compared import page_of_comparison
from loadgen.page.herd import page_of_herd
from loadgen.page.report import TEMPLATE, page_of_run, page_of_search
from loadgen.result import Mark, NotAResult
from tests.integration.browser import console, look
from tests.unit.loadgen_results import checked, herd, run, search

PAIR = run(label="before"), run(seed=2, median_ms=1.0, label="after")
PAGES = {"run": page_of_run(run(fault=True)), "search": page_of_search(search()), "herd": page_of_herd(herd())}
PAGES["compare"] = page_of_comparison(*PAIR, compare(*PAIR), 0.05)
PAGES["check"] = page_of_check("demo on redis, 30 s", [checked(), checked(fault=True)], ())


def shown(page: str, tmp_path: Path, *more: str) -> str:
    """The page as the browser has it, without its style and title; its console has to be empty."""
    file = tmp_path / "report.html"
    file.write_text(page)
    seen = look(file.as_uri(), "--dump-dom", *more)
    assert console(seen) == []
    return seen.stdout[seen.stdout.index("<body") :]


def words(dom: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", dom))


@pytest.mark.slow
def test_engineer_sees_the_answer_to_each_question(tmp_path: Path) -> None:
    text = words(shown(PAGES["search"], tmp_path))
    for question in (
        "How much load does it carry?",
        "How slow are the slow ones?",
        "What happened when?",
        "How old is what readers see?",
        "What does the store feel?",
        "Can these figures be trusted?",
    ):
        assert question in text
    for answer in ("capacity 4.97k/s", "objective: p99 below 5 ms", "5,091/s missed it", "get.p99&lt;5ms", "99.9 %"):
        assert answer in text


@pytest.mark.slow
def test_faults_and_seconds_that_do_not_count_are_marked(tmp_path: Path) -> None:
    dom = shown(PAGES["run"], tmp_path)
    assert "kill -9 of the invalidator" in dom
    assert "generator lag p99 was 31 ms" in dom
    assert dom.count('class="rule fault"') == 2 * 5  # in each of four strips and the store's


@pytest.mark.slow
def test_names_are_not_markup(tmp_path: Path) -> None:
    marks = [Mark(3.0, "<i>", "<script>document.title='x'</script>")]
    dom = shown(page_of_run(run(seconds=5, label="<b>a & b</b>", marks=marks)), tmp_path)
    assert "<script" not in dom
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in dom


@pytest.mark.slow
@pytest.mark.parametrize("page", ["run", "search", "herd"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn_in_light_and_dark(page: str, scheme: str, tmp_path: Path) -> None:
    file, picture = tmp_path / "report.html", tmp_path / f"{scheme}.png"
    file.write_text(PAGES[page])
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    seen = look(file.as_uri(), f"--screenshot={picture}", *dark)
    assert console(seen) == []
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
def test_page_can_be_printed(tmp_path: Path) -> None:
    file, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(PAGES["search"])
    look(file.as_uri(), f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 20_000


class Outside(HTMLParser):
    """Everything that could make a browser ask somebody, or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form"}:
            self.found.append(tag)
        self.found += [
            f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "xlink:href"} or name[:2] == "on"
        ]


@pytest.mark.parametrize("page", PAGES)
def test_page_asks_nobody_and_runs_nothing(page: str) -> None:
    parser = Outside()
    parser.feed(PAGES[page])
    assert parser.found == []
    assert not re.search(r"https?://|@import|url\(", PAGES[page])
    assert "default-src 'none'" in TEMPLATE.read_text()


@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_number_that_is_none(page: str) -> None:
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b(?! of)", PAGES[page])


def test_page_of_a_run_of_which_nothing_is_known() -> None:
    bare = run(
        seconds=3, consistency=None, origin=None, operations={}, sources={}, windows=[], generator=[], servers={}
    )
    assert "<svg" in page_of_run(bare)
    assert page_of_search(msgspec.structs.replace(search(), probes=[], confirmed=None, rate=0.0, above=None))


@pytest.mark.slow
def test_page_of_a_herd_says_what_leases_spare(tmp_path: Path) -> None:
    text = words(shown(PAGES["herd"], tmp_path))
    for answer in ("35.8 times fewer loads with leases", "How many loads does one loss cause?", "39.40 without"):
        assert answer in text


@pytest.mark.slow
def test_page_of_a_comparison_says_what_got_worse(tmp_path: Path) -> None:
    text = words(shown(PAGES["compare"], tmp_path))
    for answer in ("after against before", "Worse by more than 5%: get.p50", "What changed?", "WORSE"):
        assert answer in text


@pytest.mark.slow
def test_page_of_a_check_says_what_was_kept_and_when_something_was_broken(tmp_path: Path) -> None:
    dom = shown(PAGES["check"], tmp_path)
    assert "kill -9 of the invalidator" in dom
    for answer in ("0 of 8,000", "none stale", "The load", "strong reads, hits"):
        assert answer in words(dom)
    broken = page_of_check("demo", [checked()], ["2 strong reads were stale"])
    assert "Broken: 2 strong reads were stale." in broken


def test_report_is_made_of_the_record_of_a_herd(tmp_path: Path) -> None:
    record = tmp_path / "herd.json"
    record.write_bytes(msgspec.json.encode(herd()))
    assert report_of(record) == PAGES["herd"]
    record.write_bytes(msgspec.json.encode(herd()).replace(b'"plan"', b'"plam"'))
    with pytest.raises(NotAResult, match="damaged record of 'loadgen-herd/2'"):
        report_of(record)


def test_invalid_run_says_so_first() -> None:
    page = page_of_run(run(seconds=3, invalid=["worker 2 was lost"]))
    assert page.index("Invalid: worker 2 was lost") < page.index("<svg")
