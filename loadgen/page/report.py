"""One self-contained HTML file of a run or of a search: the questions of a capacity engineer, in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

from loadgen.page import charts
from loadgen.page.pieces import figure, folded, heading, paragraph, table, tiles, words
from loadgen.page.scale import milliseconds, percent, plain, share
from loadgen.page.staleness import staleness
from loadgen.page.timeline import store_load, timeline
from loadgen.result import Latency, RunResult
from loadgen.searched import SearchResult

TEMPLATE = Path(__file__).with_name("report.html")


def page_of_run(result: RunResult) -> str:
    """The page of one run."""
    bad = bool(result.invalid)
    verdict = f"Invalid: {'; '.join(result.invalid)}" if bad else "A valid run."
    parts = [
        f"<h1>{escape(result.label)}</h1>",
        paragraph(_when(result), "soft"),
        paragraph(verdict, f"verdict {'bad' if bad else 'good'}"),
        tiles(_tiles(result)),
        *_run(result),
        *_trust(result),
    ]
    return page(result.label, parts)


def page_of_search(search: SearchResult) -> str:
    """The page of a search: how much load, then the confirmed run in full."""
    kind = "good" if search.found else "unsure"
    run = search.confirmed or search.refuted
    parts = [
        f"<h1>{escape(search.label)}</h1>",
        paragraph(f"Objective: {search.objective}", "soft"),
        paragraph(search.says, f"verdict {kind}"),
        tiles(_search_tiles(search)),
        heading("How much load does it carry?", MARKS),
        figure(charts.latency_against_load(search), _knee_caption(search), "Latency against offered load"),
        figure(charts.achieved_against_offered(search), "Where the line leaves the diagonal, work is left undone."),
        folded("All probes", _probes(search)),
    ]
    if run is not None:
        confirmed = run is search.confirmed
        what = "the confirmed rate" if confirmed else "the rate that missed"
        parts += [heading(f"At {what}, {run.offered_per_s:,.0f}/s", f"From here on: one run of {run.seconds:g} s.")]
        parts += [tiles(_tiles(run)), *_run(run), *_trust(run, search)]
    return page(search.label, parts)


def page(title: str, parts: list[str]) -> str:
    """All of it in its frame."""
    return TEMPLATE.read_text().replace("@title@", escape(title)).replace("@body@", "\n".join(parts))


# --- the parts of a run ------------------------------------------------------------------------------


def _run(result: RunResult) -> Iterator[str]:
    yield heading("How slow are the slow ones?", "The axis is in nines: 90, 99 and 99.9 % are equally far apart.")
    caption = (
        "From the intended start, and (service) from the actual one. What lies between is waiting: an operation that"
        " stood behind a slow one was slow itself. Ends where fewer than three samples are left."
    )
    yield figure(charts.percentile_curves(result), caption)
    yield table(("operation", "done", "errors", "p50", "p90", "p99", "p99.9", "max"), _operations(result))
    yield heading("What happened when?", "Seconds since the start. Shaded: warm-up, or a second that does not count.")
    for title, picture in timeline(result):
        yield figure(picture, "", title)
    if result.marks:
        rows = [(f"{mark.at_s:.1f} s", mark.text) for mark in result.marks]
        yield folded("What was marked", words(rows))
    yield from staleness(result)
    if result.origin is not None:
        yield heading("What does the store feel?", "Without a cache each read would be a read of the store.")
        yield figure(store_load(result), _store_caption(result))
        yield table(*_store(result))


def _trust(result: RunResult, search: SearchResult | None = None) -> Iterator[str]:
    yield heading("Can these figures be trusted?")
    counted = [window for window in result.measured if not window.invalid]
    cores = sum(one.cores for one in result.generator)
    rows = [
        ("generator lag", f"p50 {milliseconds(result.lag.p50_ms)}, p99 {milliseconds(result.lag.p99_ms)}: {LAG}"),
        ("seconds that count", f"{len(counted)} of {len(result.measured)} measured, after {result.warmup_s:g} s"),
        ("generator", f"{_processes(result)}, {cores:.2f} of {result.host.processors} processors"),
    ]
    if result.measured:
        others = [one.others_cores for one in result.measured]
        told = f"{sum(others) / len(others):.2f} processors, {max(others):.2f} in the worst second"
        rows.append(("other work on the machine", told))
    if search is not None:
        text = (
            f"{plain(search.ceiling)}/s on a target that does nothing; no probe was above {share(search.share)} of it"
        )
        rows.append(("its own ceiling", text))
    rows += [
        (f"server: {name}", f"{usage.cores:.2f} processors, {usage.rss_mb_max:,.0f} MB")
        for name, usage in result.servers.items()
    ]
    rows += [
        ("host", f"{result.host.name}: {result.host.system}, {result.host.processors} processors"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))),
        ("seed, configuration", f"{result.seed}, {result.config_hash}"),
    ]
    yield words(rows)
    yield folded("The configuration", f"<pre>{escape(json.dumps(result.config, indent=2, default=str))}</pre>")


MARKS = "Each mark is a probe: a disc held the objective, a cross missed it, a ring was undecided or disturbed."
LAG = "how late operations began; part of the latencies above"


# --- rows ----------------------------------------------------------------------------------------------


def _when(result: RunResult) -> str:
    return (
        f"{result.started}, {result.target}, {result.seconds:g} s at {plain(result.offered_per_s)} operations a second,"
        f" {_processes(result)} on {result.host.name}"
    )


def _processes(result: RunResult) -> str:
    return f"{result.processes} process{'es' if result.processes > 1 else ''}"


def _tiles(result: RunResult) -> list[tuple[str, str]]:
    busiest = max(result.operations.items(), key=lambda item: item[1].achieved, default=None)
    found = [("done, of what was offered", f"{plain(result.achieved_per_s)}/s")]
    if result.offered_per_s:
        found = [(f"done, {share(result.achieved_per_s / result.offered_per_s)} of what was offered", found[0][1])]
    if busiest is not None:
        found.append((f"p99 of {busiest[0]}", milliseconds(busiest[1].latency.p99_ms)))
        found.append((f"p99.9 of {busiest[0]}", milliseconds(busiest[1].latency.p999_ms)))
    if result.sources:
        found.append(("hits", share(round(result.hit_ratio, 4))))
    if result.origin is not None:
        found.append(("reads of the store a second", plain(result.origin.reads_per_s)))
    if result.consistency is not None:
        one = result.consistency
        stale = share(one.ratio.share) if one.ratio.part else f"below {share(float(f'{one.ratio.high:.1g}'))}"
        found.append(("stale reads", stale))
        if one.visibility.lag.count:
            found.append(("99 % of changes seen within", milliseconds(one.visibility.lag.p99_ms)))
    return found


def _search_tiles(search: SearchResult) -> list[tuple[str, str]]:
    above = f"{search.above:,.0f}/s" if search.above is not None else "nothing"
    return [
        ("confirmed" if search.rate else "nothing was confirmed", f"{search.rate:,.0f}/s"),
        ("refuted just above", above),
        ("gives way first", search.binding or "nothing"),
        ("all votes leave open", _left_open(search)),
        ("probes", f"{len(search.probes)}"),
    ]


def _left_open(search: SearchResult) -> str:
    if search.high is None:
        return f"all above {search.low:,.0f}/s"
    return f"{search.low:,.0f} to {search.high:,.0f}/s"


def _operations(result: RunResult) -> Iterator[tuple[str, ...]]:
    for name, one in sorted(result.operations.items(), key=lambda item: -item[1].achieved):
        errors = ", ".join(f"{kind} {count:,}" for kind, count in sorted(one.errors.items())) or "0"
        yield (name, f"{one.achieved:,}", errors, *_five(one.latency))
        yield (f"{name}, service", "", "", *_five(one.service))
    yield ("generator lag", "", "", *_five(result.lag))


def _five(latency: Latency) -> tuple[str, ...]:
    values = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms)
    return tuple(milliseconds(value) if latency.count else "–" for value in values)


def _store(result: RunResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    assert result.origin is not None
    one = result.origin
    head = ("", "reads of the store", "a second", "worst second")
    without = one.client_reads
    worst = max((sum(window.sources.values()) for window in result.measured), default=0)
    return head, [
        ("with the cache", f"{one.reads:,}", plain(one.reads_per_s), plain(one.reads_per_s_max)),
        ("without it", f"{without:,}", plain(without / result.seconds if result.seconds else 0), plain(float(worst))),
    ]


def _store_caption(result: RunResult) -> str:
    assert result.origin is not None
    one = result.origin
    text = f"{one.needed:,} loads were needed, {one.reads:,} were made"
    if one.needed:
        text += f": an amplification of {one.amplification:.3g}"
    return f"{text}. Of one key at one version at most {one.herd_total_max} loads, {one.herd_at_once_max} at once."


def _probes(search: SearchResult) -> str:
    head = ("probe", "offered", "done", "p50", "p99", "p99.9", "hits", "stale", "windows", "missed")
    rows = [
        (
            f"{number} {one.phase}",
            plain(one.rate),
            plain(one.achieved),
            milliseconds(one.p50_ms),
            milliseconds(one.p99_ms),
            milliseconds(one.p999_ms),
            percent(round(one.hit_ratio * 100, 2)),
            "–" if one.stale_ratio is None else share(one.stale_ratio),
            f"{one.windows.count('held')} of {len(one.windows)} held",
            ", ".join(f"{clause} {times}" for clause, times in one.missed.items()) or one.verdict,
        )
        for number, one in enumerate(search.probes, 1)
    ]
    return table(head, rows)


def _knee_caption(search: SearchResult) -> str:
    if not search.rate:
        return "No rate was confirmed."
    above = f"; {search.above:,.0f}/s missed it" if search.above is not None else ", nothing above it was refuted"
    binding = f" The clause that gives way first is {search.binding}." if search.binding else ""
    return f"{search.rate:,.0f}/s held the objective over the long confirmation{above}.{binding}"
