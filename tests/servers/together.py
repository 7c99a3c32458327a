"""Several servers that are started together: all of them, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Self


class Together(ABC):
    """`with` it: `_start` enters what it needs into `stack`; where it fails, what had begun ends."""

    stack: ExitStack

    @abstractmethod
    def _start(self) -> None:
        """Start all of it."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
