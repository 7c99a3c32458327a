"""The page of a herd: what leases spare the store each time that a hot key is lost, and what readers feel of it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from loadgen.herd import HerdResult, HerdSide
from loadgen.page.charts import beside
from loadgen.page.pieces import figure, heading, paragraph, table, tiles
from loadgen.page.plot import Axis, Plot
from loadgen.page.report import page
from loadgen.page.scale import Scale, milliseconds, plain

CAPTION = (
    "Each mark is one time that the key was lost, and how many loads of the store followed before it was lost again."
)
FAIR = (
    "Without leases is the server's own client: get, and on a miss load and set, as a look-aside cache does it. Both"
    " ran on the same server, one after the other, with as many readers. Readers of the library are spread over several"
    " caches, as over processes, since within one process equal loads are joined anyway."
)


def page_of_herd(result: HerdResult) -> str:
    """The page."""
    plan, leases, without = result.plan, result.leases, result.without
    verdict = f"{result.fewer:.1f} times fewer loads with leases"
    if not result.held:
        verdict = "Leases did not hold the herd back"
    parts = [
        f"<h1>{escape(result.label)}</h1>",
        paragraph(
            f"{result.started}, {plan.readers} readers over {plan.caches} caches, {plan.seconds:g} s each way; "
            f" the key was lost every {plan.lost_s:g} s, a load took {plan.origin_ms:g} ms,"
            f" readers paused {plan.think_ms:g} ms.",
            "soft",
        ),
        paragraph(f"{verdict}.", f"verdict {'good' if result.held else 'bad'}"),
        tiles(
            (
                ("loads for a loss, with leases", f"{leases.loads_per_loss:.2f}"),
                ("without", f"{without.loads_per_loss:.2f}"),
                ("loads at the same time, at most", f"{leases.at_once_max}"),
                ("without", f"{without.at_once_max}"),
            )
        ),
        heading("How many loads does one loss cause?", "One is ideal: somebody has to load."),
        figure(loads_by_loss(result), CAPTION),
        heading("What do the readers feel?", "The axis is in nines: 90, 99 and 99.9 % are equally far apart."),
        figure(
            beside("reads", [("with leases", leases.latency), ("without", without.latency)]),
            "A read that finds the key lost waits for a load, its own or another's, both ways.",
        ),
        table(("", "with leases", "without"), rows(leases, without)),
        paragraph(FAIR, "soft"),
    ]
    return page(result.label, parts)


def loads_by_loss(result: HerdResult) -> str:
    """Loads that followed each loss."""
    sides = (("with leases", result.leases.by_loss), ("without", result.without.by_loss))
    counts = [float(max(1, loads)) for _, by_loss in sides for loads in by_loss]
    most = max((len(by_loss) for _, by_loss in sides), default=1)
    plot = Plot(
        "Loads by loss",
        "; ".join(f"{name}: at most {max(by_loss, default=0)} for one loss" for name, by_loss in sides),
        Axis("time that the key was lost", Scale(1, max(2, most)), plain),
        Axis("loads of the store", Scale.over([1.0, *counts], "log"), plain),
        height=280,
    )
    for series, (name, by_loss) in enumerate(sides):
        points = [(float(number), float(max(1, loads))) for number, loads in enumerate(by_loss, 1)]
        plot.line(points, series, name)
        for (at, _), loads in zip(points, by_loss, strict=True):
            plot.mark((at, max(1.0, loads)), series, "disc", f"{name}, loss {at:g}: {loads} loads")
    return plot.svg()


def rows(leases: HerdSide, without: HerdSide) -> Iterator[tuple[str, str, str]]:
    """Name, with, without: as the command prints them as well."""
    for (name, with_leases), (_, as_without) in zip(_column(leases), _column(without), strict=True):
        yield name, with_leases, as_without


def _column(one: HerdSide) -> list[tuple[str, str]]:
    return [
        ("reads", f"{one.reads:,}"),
        ("times the key was lost", f"{one.losses:,}"),
        ("loads of the store", f"{one.loads:,}"),
        ("  for each loss", f"{one.loads_per_loss:.2f}"),
        ("  for a loss, at most", f"{one.loads_per_loss_max:,}"),
        ("  at the same time, at most", f"{one.at_once_max:,}"),
        ("read p50", milliseconds(one.latency.p50_ms)),
        ("read p99", milliseconds(one.latency.p99_ms)),
        ("read p99.9", milliseconds(one.latency.p999_ms)),
        ("errors", ", ".join(f"{kind} {count:,}" for kind, count in sorted(one.errors.items())) or "0"),
    ]
