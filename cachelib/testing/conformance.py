"""Is a backend right? It is if nobody can tell it from `item.apply` preceded by an optional eviction.

For authors of further backends; needs Hypothesis, not pytest:

    subject = Subject(backend, evict=..., plant=..., life_ms=...)
    for check in CHECKS:
        check(subject)
    run_refinement(subject)

An `AsyncBackend` is tested through `on_a_loop`. Everything raises `AssertionError` with what differed.
`conformance_machine.py` has the state machine, `conformance_checks.py` and `conformance_storms.py`
the checks of what it cannot see: lives, sizes, threads.
"""

from __future__ import annotations

from cachelib.testing.conformance_checks import (
    check_binary_names,
    check_early_refresh,
    check_large_versions,
    check_many_names,
    check_notes,
    check_ttls,
    check_unreadable_item_is_a_miss,
    check_value_sizes,
)
from cachelib.testing.conformance_machine import refinement_of, run_refinement
from cachelib.testing.conformance_storms import check_concurrent_claims, check_storm
from cachelib.testing.conformance_subject import OnALoop, Subject, on_a_loop

CHECKS = (
    check_ttls,
    check_binary_names,
    check_early_refresh,
    check_value_sizes,
    check_large_versions,
    check_many_names,
    check_notes,
    check_unreadable_item_is_a_miss,
    check_concurrent_claims,
    check_storm,
)

__all__ = [
    "CHECKS",
    "OnALoop",
    "Subject",
    "check_binary_names",
    "check_concurrent_claims",
    "check_large_versions",
    "check_many_names",
    "check_notes",
    "check_storm",
    "check_ttls",
    "check_unreadable_item_is_a_miss",
    "check_value_sizes",
    "on_a_loop",
    "refinement_of",
    "run_refinement",
]
