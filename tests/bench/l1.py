"""A hit of L1 through `Cache.get`, beside the bare containers, in one run. No server is asked.

python -m tests.bench.l1 [seconds]
"""

from __future__ import annotations

import sys
import time

import cachebox

from cachelib import L1, Cache
from tests.bench._interleave import Case, Row, measure, pin, report
from tests.bench._one_row import OneRow, customers

LOOP = 100
"""Reads in one call: a clock costs as much as a read."""
NS_MAX, NS_AIM = 700, 400


def main() -> None:
    """Run the table."""
    pin(0)
    entity = customers()
    plain, boxed = {7: 7}, cachebox.LRUCache(100, {7: 7})
    with Cache("memory://", store=OneRow(), l1=L1(ttl="60s")) as cache, Cache("memory://", store=OneRow()) as without:  # type: ignore[arg-type]
        for _ in range(3):
            cache.get(entity, 7)
            without.get(entity, 7)
        numbers = range(LOOP)

        def hit(read=cache.get) -> None:  # type: ignore[no-untyped-def]
            for _ in numbers:
                read(entity, 7)

        def through(read=without.get) -> None:  # type: ignore[no-untyped-def]
            for _ in numbers:
                read(entity, 7)

        def bare(read=plain.get) -> None:  # type: ignore[no-untyped-def]
            for _ in numbers:
                read(7)

        def box(read=boxed.get) -> None:  # type: ignore[no-untyped-def]
            for _ in numbers:
                read(7)

        cases = [
            Case("dict.get", bare, per_call=LOOP),
            Case("cachebox LRUCache.get", box, per_call=LOOP),
            Case("Cache.get, L1 hit", hit, per_call=LOOP),
            Case("Cache.get, memory://, without L1", through, per_call=LOOP),
        ]
        found = measure(cases, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
    rows = []
    for case in cases:
        ns = found[case.name] * 1000
        ours = case.name.endswith("L1 hit")
        target = f"<= {NS_MAX} ns (aim {NS_AIM})" if ours else None
        rows.append(Row(case.name, round(ns, 1), "ns", None, target, ns <= NS_MAX if ours else None))
    report("l1", f"L1, {time.strftime('%Y-%m-%d')}", rows)


if __name__ == "__main__":
    main()
