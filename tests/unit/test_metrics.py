"""Counters: each has a meaning, each meaning a counter, and Prometheus can read them."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib import Cache, Entity
from cachelib import metrics as metrics_module
from cachelib.metrics import BUCKETS_S, EVENT_HELP, EVENTS, HELP, LOADS, READS, Counter, Histogram, Metrics
from tests.servers.missing import package

PACKAGE = Path(__file__).parents[2] / "cachelib"
LETTER = Entity("letter:{id}", load=None)


def noted() -> Iterator[tuple[str, str]]:
    """Every `note("…")` of the library: the file and the event."""
    for path in sorted(PACKAGE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in ("note", "_note") and node.args:
                (event,) = node.args
                if isinstance(event, ast.Constant):
                    yield path.name, event.value


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def test_every_event_that_is_noted_is_explained() -> None:
    unknown = {(path, event) for path, event in noted() if event not in EVENT_HELP}
    assert not unknown


def test_every_event_that_is_explained_is_noted() -> None:
    assert set(EVENT_HELP) == {event for _, event in noted()}


# --- counting --------------------------------------------------------------------------------


def test_a_counter_is_looked_at_without_a_step() -> None:
    counter = Counter()
    for _ in range(5):
        counter.step()
    assert [counter.value, counter.value] == [5, 5]


def test_no_step_of_any_thread_is_lost() -> None:
    counter = Counter()
    threads = [threading.Thread(target=lambda: [counter.step() for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 40_000


@given(st.lists(st.floats(0, 10)))
def test_a_histogram_counts_each_duration_once(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    assert sum(histogram.counts) == len(durations)
    assert histogram.total_s == pytest.approx(sum(durations))


def test_a_bucket_holds_its_upper_bound() -> None:
    histogram = Histogram()
    for bound in BUCKETS_S:
        histogram.add(bound)
    histogram.add(BUCKETS_S[-1] + 1)
    assert histogram.counts == [1] * (len(BUCKETS_S) + 1)


def test_buckets_rise() -> None:
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))


def test_values_are_by_metric_entity_and_label() -> None:
    metrics = Metrics()
    metrics.tally("order").add(LOADS, "outcome", "found", 3)
    metrics.tally("order").note("wait")
    metrics.tally("order").hit()
    values = {at: value for at, value in metrics.values().items() if value}
    assert values == {(LOADS, "order", "found"): 3, (EVENTS, "order", "wait"): 1, (READS, "order", "hit"): 1}


def test_an_entity_has_one_tally() -> None:
    metrics = Metrics()
    assert metrics.tally("order") is metrics.tally("order")


def test_a_listener_hears_each_step_but_plain_hits() -> None:
    heard: list[tuple[str, str, Mapping[str, str]]] = []
    metrics = Metrics(lambda metric, entity, labels: heard.append((metric, entity, labels)))
    metrics.tally("order").note("wait")
    metrics.tally("order").hit()
    assert heard == [(EVENTS, "order", {"event": "wait"})]


def test_a_read_is_counted_by_its_source() -> None:
    cache = Cache("memory://")

    @cache.cached("double:{n}")
    def double(n: int) -> int:
        return 2 * n

    for _ in range(4):
        assert double(2) == 4
    values = cache.metrics.values()
    assert (values[READS, "double", "filled"], values[READS, "double", "hit"]) == (1, 3)
    assert (values[LOADS, "double", "found"], values[EVENTS, "double", "miss"]) == (1, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_counts_although_a_thread_of_its_parent_was_counting() -> None:
    """A lock that another thread holds at the fork is held in the child for ever."""
    metrics = Metrics()
    tally = metrics.tally("order")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with metrics_module._guard:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        threading.Timer(10, lambda: os._exit(1)).start()
        tally.read_seconds.add(0.1)
        tally.note("wait")
        metrics.tally("customer").note("miss")
        os._exit(0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- Prometheus ------------------------------------------------------------------------------


def exposed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    prometheus = package("prometheus_client")
    parser = package("prometheus_client.parser")
    registry = prometheus.CollectorRegistry()
    registry.register(metrics)
    text = prometheus.generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_every_counter() -> None:
    metrics = Metrics()
    tally = metrics.tally("order")
    tally.add(READS, "source", "filled", 2)
    tally.hit()
    tally.note("wait")
    tally.read_seconds.add(0.0002)
    tally.read_seconds.add(99)
    samples = exposed(metrics)
    order = ("entity", "order")
    assert samples["leasecache_reads_total", (order, ("source", "filled"))] == 2
    assert samples["leasecache_reads_total", (order, ("source", "hit"))] == 1
    assert samples["leasecache_events_total", (order, ("event", "wait"))] == 1
    assert samples["leasecache_read_seconds_count", (order,)] == 2
    assert samples["leasecache_read_seconds_sum", (order,)] == pytest.approx(99.0002)
    assert samples["leasecache_read_seconds_bucket", (order, ("le", "0.00025"))] == 1
    assert samples["leasecache_read_seconds_bucket", (order, ("le", "+Inf"))] == 2


def test_prometheus_reads_an_entity_of_any_name() -> None:
    metrics = Metrics()
    metrics.tally('a"b\\c\nd').note("miss")
    assert ("leasecache_events_total", (("entity", 'a"b\\c\nd'), ("event", "miss"))) in exposed(metrics)


def test_every_metric_has_help() -> None:
    assert all(len(text) > 20 for text in (*HELP.values(), *EVENT_HELP.values()))
