"""What the daemon says while it runs: one structured line for each change of state, on standard error."""

from __future__ import annotations

import logging
import sys
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
