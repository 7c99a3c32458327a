"""The page of a sizing: the miss ratio of every size of cache, and what to buy."""

from __future__ import annotations

from html import escape

from loadgen.page.pieces import figure, heading, paragraph, table, tiles
from loadgen.page.plot import Axis, Plot
from loadgen.page.report import page
from loadgen.page.scale import Scale, plain, share, size
from loadgen.sizing import SizeResult

MODEL = (
    "Of a cache that drops what was used least recently, over one pool of memory. Redis looks at a sample of its items"
    " and memcached keeps pools by size: both need a little more. Leave room for growth, for connections and for the"
    " server itself."
)


def curve(result: SizeResult) -> str:
    """Misses by size."""
    plot = Plot(
        "Misses by size of the cache",
        f"{share(round(result.least_miss, 4))} of the reads miss whatever the size.",
        Axis("memory for items", Scale(result.bytes[0], result.bytes[-1], "bytes"), size),
        Axis("share of reads that miss", Scale(0, 1), share),
        height=320,
    )
    plot.rule(result.least_miss, "first reads, absent keys, expired items", kind="known")
    plot.line(list(zip(result.bytes, result.miss, strict=True)), 0, "misses")
    for one in result.choices:
        told = f"{share(round(one.hit_ratio, 4))} hits with {size(one.bytes)}: {plain(one.origin_per_s)} loads a second"
        plot.mark((one.bytes, 1 - one.hit_ratio), 0, "disc", told)
    return plot.svg()


def page_of_size(result: SizeResult) -> str:
    """The page."""
    parts = [
        f"<h1>{escape(result.label)}</h1>",
        paragraph(f"{plain(result.rate)} operations a second, {result.requests:,} requests drawn", "soft"),
        tiles(
            (
                ("bytes an item", f"{result.item_bytes:,.0f}"),
                ("of them overhead", f"{result.overhead_bytes:,.0f}"),
                ("everything that is asked for", size(result.footprint_bytes)),
                ("misses whatever the size", share(round(result.least_miss, 4))),
            )
        ),
        heading("How large a cache?", MODEL),
        figure(
            curve(result), f"Items were measured on a real {result.backend} server: {result.items_measured:,} of them."
        ),
        table(
            ("hits", "memory for items", "items", "loads of the store a second"),
            [
                (share(round(one.hit_ratio, 4)), size(one.bytes), plain(one.items), plain(one.origin_per_s))
                for one in result.choices
            ],
        ),
    ]
    return page(result.label, parts)
