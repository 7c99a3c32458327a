"""Which processors the processes of a run may use: `--pin generator=0 --pin cache=0 --pin invalidator=1`.

Two processes that take turns, as a client and its cache do, are kept on one processor by the kernel at one time and on
two at another, for minutes each. Waking a processor that rests costs more than a cached read does, so the same rate has
another latency, and another capacity, in each of these times. Who pins has one of them only. All load testers that mean
microseconds say so (mutilate, wrk2, memtier: `taskset`, `--affinity`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta, Struct

from cachelib.errors import ConfigError
from cachelib.policy import one_of

Processors = tuple[Annotated[int, Meta(ge=0)], ...]
"""By the kernel's numbers. Empty: all that the run itself may use."""


class Pins(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of the processes that a run starts, by what they are."""

    generator: Processors = ()
    """Every process of it."""
    cache: Processors = ()
    invalidator: Processors = ()


NOWHERE = Pins()
ROLES = Pins.__struct_fields__


def pins_of(texts: Sequence[str]) -> Pins:
    """Of `ROLE=PROCESSORS` each, as in "cache=0,2-3". Raises `ConfigError`."""
    found: dict[str, Processors] = {}
    for text in texts:
        role, sign, processors = text.partition("=")
        one_of("what is pinned", role, ROLES)
        if not sign or not processors:
            raise ConfigError(f"--pin {text!r} names no processors: write it as --pin {role}=0,2-3")
        if role in found:
            raise ConfigError(f"--pin {text!r}: {role} was pinned before; name all its processors at once")
        found[role] = _processors(text, processors)
    return Pins(**found)


def _processors(text: str, processors: str) -> Processors:
    found: set[int] = set()
    for part in processors.split(","):
        first, dash, last = part.partition("-")
        try:
            found |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise ConfigError(f"--pin {text!r}: {part!r} is no processor and no range of them; write 0,2-3") from None
        if dash and int(last) < int(first):
            raise ConfigError(f"--pin {text!r}: the range {part!r} is empty")
    if missing := found - usable():
        raise ConfigError(
            f"--pin {text!r}: there is no processor {min(missing)} for this process;"
            f" it may use {', '.join(map(str, sorted(usable())))}"
        )
    return tuple(sorted(found))


def usable() -> set[int]:
    """The processors that this process may use. Raises `ConfigError` where a system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        raise ConfigError("this system cannot pin processes to processors: leave --pin out")
    return os.sched_getaffinity(0)


@contextmanager
def pinned(processors: Processors) -> Iterator[None]:
    """What this thread starts in the block may use these only, with all that it starts; the thread itself, too."""
    if not processors:
        yield
        return
    before = usable()
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
