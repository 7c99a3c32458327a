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


@dataclass
class Watch:
    """`with Watch(prometheus) as watch:`; all times are real seconds."""

    prometheus: PrometheusServer
    lines: list[Line] = field(default_factory=list)
    fired: dict[str, float] = field(default_factory=dict)
    """Alert to when it fired first, since the incident began."""
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

    def begin(self) -> None:
        """The incident begins now."""
        self.fired.clear()  # what an incident before this one has left behind, and is over
        shift = self.now()
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
                    if state == "firing":
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
