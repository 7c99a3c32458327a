"""What the daemon says while it runs: one structured line for each change of state, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import structlog

from invalidator.settings import LogSettings

Log: TypeAlias = Any
"""A structlog logger; its own types are `Any` all the same."""


def open_log(settings: LogSettings) -> Log:
    """A logger by these settings."""
    shape: Any = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        cache_logger_on_first_use=False,
    )


class Seldom:
    """Says things of one kind at most once in `every_s`, and then how many of them were not said."""

    def __init__(self, log: Log, clock_s: Callable[[], float], every_s: float = 60.0) -> None:
        self._log = log
        self._clock_s = clock_s
        self._every_s = every_s
        self._said: dict[str, tuple[float, int]] = {}

    def error(self, kind: str, what: str, /, **fields: Any) -> None:
        """Say it, or count it."""
        now_s = self._clock_s()
        last = self._said.get(kind)
        if last is not None and now_s - last[0] < self._every_s:
            self._said[kind] = last[0], last[1] + 1
            return
        if last is None and len(self._said) >= _KINDS_MAX:
            self._said.clear()
        self._said[kind] = now_s, 0
        self._log.error(what, **fields, more=last[1] if last else 0)


_KINDS_MAX = 1000
