"""How every command ends: an exit code, and where something failed one sentence."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from cachelib.errors import CacheError, ConfigError, MissingExtra

PASSED: Final = 0
MISSED: Final = 1
"""An objective was missed, or something got worse."""
USAGE: Final = 2
INVALID: Final = 3
"""The run says nothing."""
INTERRUPTED: Final = 130


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """An error is one sentence and an exit code; a traceback only where it was asked for."""
    # Through every `finally`, as Ctrl-C; which a shell has switched off for what it runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except (CacheError, OSError) as error:
        if debug:
            traceback.print_exc()
        fail(str(error), USAGE if isinstance(error, ConfigError | MissingExtra) else INVALID)


def fail(text: str, code: int) -> NoReturn:
    """Say it and end."""
    sys.stderr.write(f"loadgen: {' '.join(text.split())}\n")
    sys.stderr.flush()
    sys.exit(code)
