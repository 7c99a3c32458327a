"""What is seen while a run goes on: a line that changes in place on a terminal, plain lines elsewhere, and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cachelib.errors import MissingExtra
from loadgen.engine.crew import Progress as Beat

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LINE_EVERY_S = 5.0
MEASURES = {
    "loadgen_operations_done": ("counter", "Operations that ended, of the current run."),
    "loadgen_operations_offered": ("gauge", "Operations that the current run will offer in all."),
    "loadgen_errors": ("counter", "Operations that failed, of the current run."),
    "loadgen_lag_seconds": ("gauge", "How late the worst worker's latest ones began, p99, with waits for the target."),
    "loadgen_latency_p99_seconds": ("gauge", "Latency from the intended start of the worst worker's latest ones, p99."),
    "loadgen_processors": ("gauge", "Processors that the workers use."),
    "loadgen_run_seconds": ("gauge", "How long the current run has been under load."),
}


class Watch:
    """Told of progress and of what happened: `tick` and `say`. Enter it before the run."""

    def __init__(self, console: Console, title: str, metrics: Metrics | None = None) -> None:
        self._console = console
        self._title = title
        self._metrics = metrics
        self._began = time.monotonic()
        self._line_at = self._began + LINE_EVERY_S
        self._before: tuple[float, int] = (0.0, 0)
        self._rate = 0.0
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("", total=1.0)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, note: str) -> None:
        """Something happened: it stays."""
        at_s = time.monotonic() - self._began
        self._console.print(f"{at_s:6.1f} s  {note}", highlight=False, soft_wrap=True)

    def set_up(self, what: str, done: int, of: int) -> None:
        """A part of what stands before the load, and how far it is."""
        if self._live is not None:
            self._bar.update(self._task, completed=done, total=max(1, of), description=what)
            self._live.update(self._bar)

    def tick(self, beat: Beat) -> None:
        """As of now."""
        if self._metrics is not None:
            self._metrics.tell(beat)
        then, done = self._before
        if beat.at_s < then:  # another run
            self._before, self._rate = (beat.at_s, beat.done), 0.0
        elif beat.at_s - then >= 1:
            self._before, self._rate = (beat.at_s, beat.done), (beat.done - done) / (beat.at_s - then)
        if self._live is not None:
            self._live.update(self._table(beat))
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_EVERY_S
            self.say(_line(beat, self._rate))

    def _table(self, beat: Beat) -> Table:
        self._bar.update(self._task, completed=beat.at_s, total=beat.length_s, description=self._title)
        table = Table.grid(padding=(0, 2))
        table.add_row(self._bar)
        table.add_row(Text(_line(beat, self._rate)))
        return table


def _line(beat: Beat, rate: float) -> str:
    share = beat.done / beat.offered if beat.offered else 0.0
    return (
        f"{beat.done:,} of {beat.offered:,} operations ({share:.0%}), {rate:,.0f}/s, p99 {beat.p99_ms:.2f} ms,"
        f" begun {beat.late_ms:.2f} ms late, generator on {beat.cores:.1f} processors, {beat.errors:,} errors"
    )


class Metrics:
    """The same in Prometheus's format, on a port of the loopback address, while the block is open."""

    def __init__(self, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as error:
            raise MissingExtra("metrics while it runs need: pip install 'leasecache[metrics]'") from error
        self._beat: Beat | None = None
        self._lock = Lock()
        registry = CollectorRegistry()
        registry.register(self)
        self._server, self._thread = start_http_server(port, "127.0.0.1", registry)
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def tell(self, beat: Beat) -> None:
        """As of now."""
        with self._lock:
            self._beat = beat

    def collect(self) -> Iterable[Metric]:
        """For the client library: what was told last, and the names alone before that."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            beat = self._beat
        values = {} if beat is None else values_of(beat)
        for name, (kind, text) in MEASURES.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text)
            if name in values:
                family.add_metric([], values[name])
            yield family


def values_of(beat: Beat) -> dict[str, float]:
    """By the names of `MEASURES`."""
    return {
        "loadgen_operations_done": beat.done,
        "loadgen_operations_offered": beat.offered,
        "loadgen_errors": beat.errors,
        "loadgen_lag_seconds": beat.late_ms / 1000,
        "loadgen_latency_p99_seconds": beat.p99_ms / 1000,
        "loadgen_processors": beat.cores,
        "loadgen_run_seconds": max(0.0, beat.at_s),
    }


def advance_of(watch: Watch) -> Callable[[str, int, int], None]:
    """For the set-up of a bench: a line when a part of it that took a while is done."""
    began: dict[str, float] = {}

    def advance(what: str, done: int, of: int) -> None:
        began.setdefault(what, time.monotonic())
        watch.set_up(what, done, of)
        if done >= of and time.monotonic() - began.pop(what) > LINE_EVERY_S:
            watch.say(f"{what}: {of:,} are there")

    return advance
