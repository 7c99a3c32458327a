"""Which node of a pool owns which keys: slots, their owners and their tenures. Pure.

A key belongs to one of `SLOTS` slots, and each slot to one node: the one with the highest hash of node and
slot together (rendezvous hashing, Thaler and Ravishankar 1998). So a node that joins takes slots from all others
and nothing else moves, and one that leaves gives up its own only.

A slot that changes its owner gets a new *tenure*, a random part of its keys' names. So a node that leaves
and comes back with old data is never asked for it. Slots that stay keep theirs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from zlib import crc32

from cachelib.errors import ConfigError

SLOTS = 1024
"""A power of two; a part of the protocol: every client must find the same slot for a key."""
NODES_MAX = 128


def fresh_name() -> str:
    """A random epoch or tenure; 40 bits, never used again in practice."""
    return secrets.token_hex(5)


def slot_of(text: bytes) -> int:
    """The slot of a key, by its text (see `keys.py`), whatever its entity's epoch."""
    return crc32(text) & (SLOTS - 1)


def ranked(nodes: Iterable[str], slot: int) -> list[str]:
    """The nodes in the order in which they would own the slot."""
    return sorted(nodes, key=lambda node: _weight(node, slot), reverse=True)


def _weight(node: str, slot: int) -> bytes:
    return hashlib.blake2b(f"{slot}/{node}".encode(), digest_size=8).digest() + node.encode()


@dataclass(frozen=True, slots=True)
class Slots:
    """The nodes of a pool, and for each slot its owner and tenure. A tenure is of one node only."""

    nodes: tuple[str, ...]
    owners: tuple[str, ...]
    tenures: tuple[str, ...]

    @property
    def homes(self) -> Mapping[str, str]:
        """The node of each tenure."""
        return dict(zip(self.tenures, self.owners, strict=True))

    def of(self, node: str) -> list[int]:
        """The slots that a node owns."""
        return [slot for slot, owner in enumerate(self.owners) if owner == node]


def first_slots(nodes: Sequence[str]) -> Slots:
    """The slots of a pool that begins. Raises `ConfigError`."""
    return _moved(_checked(nodes), [("", "")] * SLOTS)


def fixed_slots(nodes: Sequence[str]) -> Slots:
    """The slots of a pool that no store keeps a layout of: whoever is given the same nodes has the same tenures."""
    checked = _checked(nodes)
    names = {node: hashlib.blake2b(node.encode(), digest_size=5).hexdigest() for node in checked}
    owners = _owners(frozenset(checked))
    return Slots(checked, owners, tuple(names[owner] for owner in owners))


def with_nodes(slots: Slots, nodes: Sequence[str]) -> Slots:
    """The same pool with these nodes: what has to move moves, under new tenures. Raises `ConfigError`."""
    return _moved(_checked(nodes), list(zip(slots.owners, slots.tenures, strict=True)))


def with_new_tenure(slots: Slots, node: str) -> Slots:
    """The node's keys get new names: what it holds now is never asked for again."""
    tenure = fresh_name()
    pairs = zip(slots.owners, slots.tenures, strict=True)
    return replace(slots, tenures=tuple(tenure if owner == node else old for owner, old in pairs))


def _moved(nodes: tuple[str, ...], before: Sequence[tuple[str, str]]) -> Slots:
    taken = {node: fresh_name() for node in nodes}
    owners = _owners(frozenset(nodes))
    tenures = tuple(old if owner == was else taken[owner] for owner, (was, old) in zip(owners, before, strict=True))
    return Slots(nodes, owners, tenures)


@lru_cache(maxsize=2 * NODES_MAX)
def _weights(node: str) -> tuple[bytes, ...]:
    return tuple(_weight(node, slot) for slot in range(SLOTS))


def _owners(nodes: frozenset[str]) -> tuple[str, ...]:
    weighed = [(node, _weights(node)) for node in nodes]
    return tuple(max(weighed, key=lambda one: one[1][slot])[0] for slot in range(SLOTS))


def _checked(nodes: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= len(nodes) <= NODES_MAX:
        raise ConfigError(f"a pool takes 1 to {NODES_MAX} nodes, not {len(nodes)}")
    twice = sorted({node for node in nodes if nodes.count(node) > 1})
    if twice:
        raise ConfigError(f"a pool has each node once, and {twice[0]!r} is given more often")
    return tuple(nodes)


# --- as a document ---------------------------------------------------------------------------


def plain_of(slots: Slots) -> dict[str, Any]:
    """For JSON: the nodes, the tenures with the number of their node, and the number of each slot's tenure."""
    homes = slots.homes
    numbers = {tenure: number for number, tenure in enumerate(homes)}
    return {
        "nodes": list(slots.nodes),
        "tenures": [[slots.nodes.index(node), tenure] for tenure, node in homes.items()],
        "slots": [numbers[tenure] for tenure in slots.tenures],
    }


def slots_from(plain: Mapping[str, Any]) -> Slots:
    """What `plain_of` wrote. Raises `ValueError`, `KeyError`, `TypeError` or `IndexError` where it is none of ours."""
    nodes = _checked([str(node) for node in plain["nodes"]])
    tenures = [(nodes[_number(at)], str(tenure)) for at, tenure in plain["tenures"]]
    if len({tenure for _, tenure in tenures}) != len(tenures) or not all(tenure for _, tenure in tenures):
        raise ValueError("a tenure is there twice, or empty")
    places = [tenures[_number(at)] for at in plain["slots"]]
    if len(places) != SLOTS:
        raise ValueError(f"{len(places)} slots")
    return Slots(nodes, tuple(owner for owner, _ in places), tuple(tenure for _, tenure in places))


def _number(at: Any) -> int:
    if type(at) is not int or at < 0:
        raise ValueError(f"{at!r} is no number of a place")
    return at
