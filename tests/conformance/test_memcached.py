"""The Memcached backend over a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymemcache.client.base import Client

from cachelib.backends.memcached import AsyncMemcached, Memcached
from cachelib.backends.memcached.wire import TTL_S_MAX
from cachelib.model import ABSENCE, Fill, Get, value_of
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement
from cachelib.testing.conformance_subject import readable
from tests.servers.memcached import MemcachedServer


def life_ms(behind: Client, name: bytes) -> int | None:
    told = behind.raw_command(b"mg %b t" % name)
    return int(told.split(b" t")[1]) * 1000 if told.startswith(b"HD ") else None


@pytest.fixture(params=["sync", "async"])
def subject(request: pytest.FixtureRequest, memcached_server: MemcachedServer, memcached_url: str) -> Iterator[Subject]:
    behind = Client(("127.0.0.1", memcached_server.port), default_noreply=False)
    backend = Memcached(memcached_url) if request.param == "sync" else on_a_loop(AsyncMemcached(memcached_url))
    yield Subject(
        backend,
        evict=behind.delete,
        plant=lambda name, raw: behind.set(name, raw, 3600),
        life_ms=lambda name: life_ms(behind, name),
    )
    backend.close()
    behind.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_memcached_passes(subject: Subject, check) -> None:
    check(subject)


def test_memcached_refines_the_item_machine(subject: Subject) -> None:
    run_refinement(subject, examples=40)


@pytest.mark.parametrize("days", [31, 40, 4_000])
def test_life_is_cut_to_what_the_server_counts(subject: Subject, days: int) -> None:
    name = subject.name(b"long-life")
    subject.backend.execute(name, Get(1, 1000), 0)
    subject.backend.execute(name, Fill(1, ABSENCE, 1, days * 86_400_000), 0)
    left_s = (subject.life_ms(name) or 0) / 1000
    assert TTL_S_MAX - 5 <= left_s <= TTL_S_MAX


def test_all_bytes_but_spaces_and_controls_are_a_name(subject: Subject) -> None:
    allowed = bytes(byte for byte in range(0x21, 256) if byte != 0x7F)
    names = [allowed[:120], allowed[120:], b"n" * 250, b"n" * 249]
    for number, name in enumerate(names, 1):
        subject.backend.execute(name, Get(number, 1000), 0)
        subject.backend.execute(name, Fill(number, value_of(name), number, 60_000), 0)
    items = [readable(raw) for raw in subject.backend.get_many(names)]
    assert [item and item.content for item in items] == [value_of(name) for name in names]
