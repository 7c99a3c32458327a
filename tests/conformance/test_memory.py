"""The memory backend against the conformance suite, sync and async."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachelib.backends.memory import AsyncMemory, Memory
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement


@pytest.fixture(params=["sync", "async"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    memory = Memory()
    backend = memory if request.param == "sync" else on_a_loop(AsyncMemory(memory))
    yield Subject(backend, memory.evict, memory.plant, memory.life_ms, large_payload_bytes=1 << 20)
    backend.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_memory_passes(subject: Subject, check) -> None:
    check(subject)


def test_memory_refines_the_item_machine(subject: Subject) -> None:
    run_refinement(subject, examples=60)
