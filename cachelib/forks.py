"""What has to be forgotten in a child after a fork: one hook for all, as a hook can never be taken back."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forgetful(Protocol):
    """Something that holds what is the parent's."""

    def forget(self) -> None:
        """In a child after a fork: go on without the parent's connections."""


_living: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forgets_on_fork(one: Forgetful) -> None:
    """Asked once, at the fork, instead of comparing process ids at every call; as long as it lives."""
    _living.add(one)


def _in_child() -> None:
    for one in list(_living):
        one.forget()


os.register_at_fork(after_in_child=_in_child)
