"""Looks at the alerts of a Prometheus all the time, and keeps when each began to wait, fired and ended."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.servers.prometheus import PrometheusServer

EVERY_S = 0.2


@dataclass
class Line:
    """One line of a timeline."""

    at_s: float
    """Since the incident began; before it, negative."""
    who: str
    """`alert`, `runbook`, `world` or `person`."""
    what: str
    said: str = ""


class FalseAlarm(AssertionError):
    """An alert fired though nothing was broken."""


@dataclass
class Watch:
    """`with Watch(prometheus) as watch:`; all times are real seconds.

    `after_another`: there was an incident before this one in the same world, so what fires already at the first look is
    what that has left behind. It is forgotten, but only as it is: whatever begins to fire later counts.
    """

    prometheus: PrometheusServer
    after_another: bool = False
    lines: list[Line] = field(default_factory=list)
    fired: dict[str, float] = field(default_factory=dict)
    """Alert to when it began to fire, since the incident began; of those that the first look forgives, nothing."""
    states: dict[str, str] = field(default_factory=dict)
    """Alerts that are pending or firing now."""

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.looked = False
        """The alerts were asked for at least once."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def now(self) -> float:
        """Seconds since the incident began."""
        return time.monotonic() - self.began

    def quiet(self) -> bool:
        """No alert waits or fires."""
        return self.looked and not self.states

    def wait_for_quiet(self, wait_s: float) -> None:
        """Until then, or for so long."""
        deadline = time.monotonic() + wait_s
        while not self.quiet() and time.monotonic() < deadline:
            time.sleep(EVERY_S)

    def begin(self) -> None:
        """The incident begins now; perhaps once more, where it needs a calm of its own. Raises `FalseAlarm`."""
        shift = self.now()
        if self.fired:
            told = ", ".join(f"{name} ({shift - at:.1f} s ago)" for name, at in sorted(self.fired.items()))
            raise FalseAlarm(f"fired in the calm, before anything was broken: {told}")
        self.began += shift
        for line in self.lines:
            line.at_s -= shift

    def note(self, who: str, what: str, said: str = "") -> None:
        """A line of the timeline."""
        self.lines.append(Line(self.now(), who, what, said))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                found = self.prometheus.alerts()
            except OSError:
                continue  # a busy machine: the next look is soon
            states: dict[str, str] = {}
            for alert in found:
                name = alert["labels"]["alertname"]
                states[name] = "firing" if "firing" in (alert["state"], states.get(name)) else "pending"
            for name, state in states.items():
                if self.states.get(name) != state:
                    self.note("alert", f"{name} {state}")
                    if state == "firing" and (self.looked or not self.after_another):
                        self.fired.setdefault(name, self.now())
            for name in self.states.keys() - states.keys():
                self.note("alert", f"{name} over")
            self.states, self.looked = states, True

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
