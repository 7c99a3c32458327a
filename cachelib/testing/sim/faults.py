"""What goes wrong with nodes, networks, the store and programs, at the moment of a deed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from cachelib.testing.sim.client import Cancelled, Client
from cachelib.testing.sim.node import Server
from cachelib.testing.sim.profile import Deed

if TYPE_CHECKING:
    from cachelib.testing.sim.world import World


class Fault(NamedTuple):
    """What goes wrong, where, and by what chance."""

    world: World
    client: Client
    deed: Deed
    random: Random


def _evict(at: Fault) -> None:
    for name in at.world.names(*at.deed.what):
        at.client.node.evict(name)


def _garbage(at: Fault) -> None:
    for name in at.world.names(*at.deed.what):
        raw = at.client.node.peek(name)
        at.client.node.plant(name, _spoiled(raw or b"", at.random))


def _restart(at: Fault) -> None:
    at.client.node.restart()


def _old(at: Fault) -> None:
    """A snapshot is taken, or the node comes back with the last one."""
    node: Server = at.client.node
    kept = at.world.kept.pop(node.name, None)
    if kept is None or at.random.random() < 0.3:
        at.world.kept[node.name] = node.keep()
    else:
        node.restart_from(kept)


def _keep(at: Fault) -> None:
    """A snapshot is taken, once."""
    for node in at.world.nodes:
        at.world.kept.setdefault(node.name, node.keep())


def _come_back(at: Fault) -> None:
    """The node comes back with it."""
    node: Server = at.client.node
    if node.name in at.world.kept:
        node.restart_from(at.world.kept[node.name])


def _fuse(at: Fault) -> None:
    """The node will restart when it has answered so many more questions: in the middle of something."""
    at.client.node.fuse = at.deed.what[0]


def _forget_notes(at: Fault) -> None:
    """The node is full, and what it evicts is not items."""
    at.world.nodes[at.deed.who % len(at.world.nodes)].forget_notes()


def _cut(at: Fault) -> None:
    at.world.network.cut[at.client.process.name, at.client.node.name] = at.world.loop.now_us + at.deed.what[0]


def _node_down(at: Fault) -> None:
    at.client.node.down = True
    at.world.loop.at(at.deed.what[0], lambda: setattr(at.client.node, "down", False))


def _store_down(at: Fault) -> None:
    at.world.store.down = True
    at.world.loop.at(at.deed.what[0], lambda: setattr(at.world.store, "down", False))


def _store_cut(at: Fault) -> None:
    """One program does not reach the store."""
    at.world.store.cut[at.client.process.name] = at.world.loop.now_us + at.deed.what[0]


def _slow_load(at: Fault) -> None:
    """The next load of a program takes so much longer: from its clock to its snapshot, and from there."""
    early_us, late_us = at.deed.what
    at.world.store.slow_loads[at.client.process.name] = early_us, late_us


def _pause(at: Fault) -> None:
    at.client.process.paused_until_us = at.world.loop.now_us + at.deed.what[0]


def _kill(at: Fault) -> None:
    at.client.process.alive = False
    at.world.loop.at(at.random.randint(1, 20_000), lambda: at.world.store.forget(at.client.process))


def _cancel(at: Fault) -> None:
    calls = [call for call in at.client.calls if not call.done]
    if calls:
        at.world.loop.throw(at.random.choice(calls), Cancelled())


def _spoiled(raw: bytes, random: Random) -> bytes:
    """Bytes that are not what was written: what I12 is about."""
    if not raw or random.random() < 0.3:
        return random.randbytes(random.randint(0, 90))
    if random.random() < 0.5:
        return raw[: random.randint(0, len(raw) - 1)]
    return raw + b"\xc1"  # no MessagePack begins or goes on with this byte


FAULTS: dict[str, Callable[[Fault], None]] = {
    "evict": _evict,
    "garbage": _garbage,
    "restart": _restart,
    "old": _old,
    "keep": _keep,
    "come_back": _come_back,
    "fuse": _fuse,
    "forget_notes": _forget_notes,
    "cut": _cut,
    "node_down": _node_down,
    "store_down": _store_down,
    "store_cut": _store_cut,
    "slow_load": _slow_load,
    "pause": _pause,
    "kill": _kill,
    "cancel": _cancel,
}
"""By the kind of the deed."""
