"""A rule of the protocol dropped from the backends, for Redis in the script's text, for Memcached in the machine.

They are made in the test build only (the shop's process, `shop.py`); the verifier that has to find them runs as it
is. Each is one that stands among the mutants of `tests/model` and `tests/conformance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cachelib import item as cache
from cachelib.backends.redis import backend as redis_backend
from cachelib.backends.redis.talks import ITEM, Script
from cachelib.model import Item, NoOp, Revoke
from tests.conformance.test_mutants import WITHOUT
from tests.model import mutants


@dataclass(frozen=True, slots=True)
class Bug:
    """`lua`: what is replaced in the script; `functions`: in `cachelib.item`."""

    lua: tuple[tuple[str, str], ...]
    functions: tuple[tuple[str, Callable[..., Any]], ...]

    def plant(self) -> None:
        """From here on, in this process."""
        text = ITEM.text.decode()
        for old, new in self.lua:
            assert old in text, f"item.lua no longer says {old!r}"
            text = text.replace(old, new)
        redis_backend.ITEM = Script(text.encode())
        for name, function in self.functions:
            assert hasattr(cache, name)
            setattr(cache, name, function)


def _revoke_does_nothing(item: Item | None, op: Revoke, now_ms: int) -> Any:
    return item, NoOp()


_GROUND = "put_has_ground(item, op) and not less(op.version, item.floor)"

BUGS: dict[str, Bug] = {
    "a fill needs no lease": Bug((WITHOUT["fill without its lease"],), (("_fill", mutants.fill_without_token),)),
    "a fill goes below the floor": Bug((WITHOUT["fill below the floor"],), (("_fill", mutants.fill_without_floor),)),
    "absence claims any floor": Bug(
        (WITHOUT["absence claims any floor"],), (("_may_claim_floor", lambda item, op: op.content.kind == 2),)
    ),
    "a put fills an empty slot": Bug(
        ((f"if item and {_GROUND} then", f"if not item or ({_GROUND}) then"),), (("_put", mutants.put_creates),)
    ),
    "a put is not compared": Bug(
        (WITHOUT["put below the floor"], ("if compared and not less(item.version, op.version)", "if false")),
        (
            ("_put_has_ground", mutants.put_does_not_compare),
            ("_put", mutants.put_below_floor),
        ),
    ),
    "a put goes over void content": Bug(
        (WITHOUT["put over void content"],), (("_put_has_ground", mutants.put_over_void),)
    ),
    "nothing raises a floor": Bug(
        (("if less(item.floor, op.version) then -- I1", "if false then"),),
        (("_raise_floor", mutants.raise_does_nothing),),
    ),
    "a floor falls": Bug((WITHOUT["floors fall"],), (("_raise_floor", mutants.raise_lowers),)),
    "a revoke keeps the lease": Bug((WITHOUT["revoke keeps the lease"],), (("_revoke", mutants.revoke_keeps_lease),)),
    "a revoke does nothing": Bug(
        (("(only_for_create and not may_hide_a_create(item))", "true"),), (("_revoke", _revoke_does_nothing),)
    ),
}
