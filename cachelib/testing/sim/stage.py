"""Clocks and chance for the code under simulation: it asks `time`, `random`, `secrets` and `os`, and is answered here.

The modules of the library name the standard ones; for as long as a simulation runs, those names
stand for these. So the code is what it is in production, and no clock has to be handed through it.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cachelib.testing.sim.loop import Loop


class Stage:
    """Where the simulation of now plays."""

    loop: Loop


class Clock:
    """`time`, as the process that is running now has it: its wall clock may be wrong, its monotonic one is not set."""

    def time_ns(self) -> int:
        """See `time`."""
        loop = Stage.loop
        return (loop.now_us + loop.current.process.skew_us) * 1000

    def time(self) -> float:
        """See `time`."""
        return self.time_ns() / 1e9

    def monotonic_ns(self) -> int:
        """See `time`."""
        return Stage.loop.now_us * 1000

    def monotonic(self) -> float:
        """See `time`."""
        return Stage.loop.now_us / 1e6

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        """Nobody may block."""
        raise RuntimeError("code under simulation slept")


class Dice:
    """`random`, by the seed of the task that is running now."""

    def __getattr__(self, name: str) -> Any:
        return getattr(Stage.loop.current.random, name)


class Secrets:
    """`secrets`: names that are never used twice, and the same in every run of a seed."""

    def token_hex(self, count: int) -> str:
        """See `secrets`."""
        return f"{Stage.loop.random.getrandbits(8 * count):0{2 * count}x}"


class System:
    """The part of `os` that is asked."""

    def urandom(self, count: int) -> bytes:
        """See `os`."""
        return Stage.loop.random.randbytes(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


STANDS_FOR: dict[Any, Any] = {time: Clock(), random: Dice(), secrets: Secrets(), os: System()}
BY_NAME = {
    time: ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep"),
    random: ("random", "uniform", "randint", "randrange", "choice", "choices", "shuffle", "sample", "getrandbits"),
    secrets: ("token_hex",),
    os: ("urandom",),
}
"""Functions that a module may have imported by their names."""


def _asked_for(module: Any, name: str) -> Callable[..., Any]:
    stand_in = STANDS_FOR[module]

    def ask(*values: Any) -> Any:
        return getattr(stand_in, name)(*values)  # of whoever is running then

    return ask


_FUNCTIONS = {
    id(getattr(module, name)): _asked_for(module, name) for module, names in BY_NAME.items() for name in names
}


def _instead_of(thing: Any) -> Any:
    """What stands for a module or a function of one; None where nothing has to."""
    if isinstance(thing, type(sys)):
        return STANDS_FOR.get(thing)
    return _FUNCTIONS.get(id(thing))


@contextmanager
def set_up(packages: Sequence[str] = ("cachelib",)) -> Iterator[None]:
    """Every module of these packages that is loaded by now is answered by the simulation, until the end."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in packages or name.startswith(__package__ or ""):
            continue
        names = vars(module)
        for word, thing in list(names.items()):
            stand_in = _instead_of(thing)
            if stand_in is not None:
                replaced.append((names, word, thing))
                names[word] = stand_in
    try:
        yield
    finally:
        for names, word, thing in replaced:
            names[word] = thing
