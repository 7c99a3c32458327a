"""What a call costs, counted: system calls by name and Python functions of all kinds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import CoroutineType, FrameType, GeneratorType
from typing import Any

SYSTEM = ("sendall", "send", "recv", "poll", "getpid", "select")
_GENERATORS = (GeneratorType, CoroutineType)
"""They have a `send`, too."""


class Cost:
    """Of one call, or (`begin` … `end`) of what happens in between."""

    def __init__(self, call: Callable[[], Any] | None = None) -> None:
        self.system: Counter[str] = Counter()
        self.python = 0
        self.result: Any = None
        if call is not None:
            self.begin()
            try:
                self.result = call()
            finally:
                self.end()

    def begin(self) -> None:
        """Count from now on."""
        sys.setprofile(self._note)

    def end(self) -> None:
        """No more."""
        sys.setprofile(None)
        self.python -= 1  # this one

    def _note(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self.python += 1
        elif event == "c_call" and arg.__name__ in SYSTEM and not isinstance(arg.__self__, _GENERATORS):
            self.system[arg.__name__] += 1

    @property
    def trips(self) -> int:
        """Round trips: each begins with one write."""
        return self.system["sendall"] + self.system["send"]
