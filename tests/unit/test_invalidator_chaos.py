"""Everything that can happen to store, nodes and daemon, in random order; afterwards nothing stale is left.

A failing seed is printed by its test's name: `pytest tests/unit/test_invalidator_chaos.py -k "[17]"`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from cachelib.envelope import decode
from cachelib.errors import CacheUnavailable, StoreError
from tests.unit.invalidator_world import EarlyOutbox, Outbox, World

KEYS = range(5)
STEPS = (10, 30, 120)
"""What happens last is not made good by what happens after it, so some runs are short."""


class Chaos:
    """A world with two nodes, to which things happen by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        source = self.random.choice([Outbox, EarlyOutbox])
        self.world = World("a", "b", source=source, node_dead_after="10s", settle_delay="1s")
        self.rows = dict.fromkeys(KEYS, 0)
        self.past: list[tuple[dict[int, int], int]] = []
        self.snapshots: dict[str, Any] = {}
        self.told: list[str] = []

    def happen(self) -> None:
        weights: list[tuple[int, Callable[[], None]]] = [
            (20, self.change),
            (20, self.fill),
            (25, self.turn),
            (25, self.step),
            (3, self.down),
            (6, self.up),
            (2, self.restart_empty),
            (3, self.snapshot),
            (3, self.restart_from_snapshot),
            (2, self.lose_answer),
            (2, self.new_process),
            (1, self.break_store),
            (3, self.mend_store),
            (1, self.purge_too_much),
            (1, self.truncate),
            (1, self.go_back),
            (2, self.long_pause),
        ]
        deed = self.random.choices([deed for _, deed in weights], [weight for weight, _ in weights])[0]
        self.told.append(deed.__name__)
        deed()

    def node(self) -> Any:
        return self.world.nodes[self.random.choice("ab")]

    def change(self) -> None:
        key = self.random.choice(KEYS)
        self.rows[key] = self.world.store.change(key={"id": key}).version or 0

    def truncate(self) -> None:
        self.world.store.change("truncate")
        self.rows = dict.fromkeys(KEYS, self.world.store.version)  # other rows than before, all of them

    def fill(self) -> None:
        """A client loads a row and caches it, both at once: what it caches is true at that moment."""
        if self.world.store.document is None:
            return
        key, node = self.random.choice(KEYS), self.random.choice("ab")
        self.world.cache(self.rows[key], f"customers:{key}", node)

    def turn(self) -> None:
        self.world.clock.now_s += self.random.choice([0.01, 0.3, 1.0])
        self.world.service.turn()
        self.world.service.books.keep()

    def step(self) -> None:
        worker = self.world.worker(self.random.choice("ab"))
        try:
            worker.step()
        except (CacheUnavailable, StoreError) as error:
            worker.failed(error)

    def down(self) -> None:
        self.node().down = True

    def up(self) -> None:
        self.node().down = False

    def restart_empty(self) -> None:
        self.node().restart()

    def snapshot(self) -> None:
        name = self.random.choice("ab")
        self.snapshots[name] = self.world.nodes[name].snapshot()

    def restart_from_snapshot(self) -> None:
        name = self.random.choice("ab")
        items, notes = self.snapshots.get(name, ({}, {}))
        if notes:  # a node that ever counted has its position in whatever it saves
            self.world.nodes[name].restart_from((items, notes))

    def lose_answer(self) -> None:
        self.node().loses_answers = 1

    def new_process(self) -> None:
        if not self.world.store.broken:
            self.world.start()

    def break_store(self) -> None:
        self.world.store.broken = True

    def mend_store(self) -> None:
        self.world.store.broken = False

    def purge_too_much(self) -> None:
        self.world.store.purged = len(self.world.store.log)

    def go_back(self) -> None:
        """The store is restored from a backup, and says so, or is looked at before it has caught up."""
        store = self.world.store
        self.past.append((dict(self.rows), len(store.log)))
        rows, length = self.random.choice(self.past)
        if length >= len(store.log) or length < store.purged:
            return
        del store.log[length:]
        store.version, self.rows = length, dict(rows)
        self.past = [(dict(rows), length)]
        if self.random.random() < 0.5:
            store.who += "'"
        store.broken = False
        self.world.go(8)

    def long_pause(self) -> None:
        self.world.clock.now_s += self.random.choice([3, 15])

    def calm(self) -> None:
        """Everything answers again, and there is time."""
        self.mend_store()
        for node in self.world.nodes.values():
            node.down, node.loses_answers = False, 0
        self.world.go(60)


@pytest.mark.parametrize("seed", range(200))
def test_nothing_stale_is_left(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(chaos.random.choice(STEPS)):
        chaos.happen()
    chaos.calm()
    stale = []
    for name, node in chaos.world.nodes.items():
        for key, version in chaos.rows.items():
            raw = node.get(chaos.world.name_of(f"customers:{key}"))
            if raw is not None and (item := decode(raw)).fresh and item.version != version:
                stale.append((name, key, item.version, version))
    assert not stale, chaos.told
    end = chaos.world.store.log_end()
    assert chaos.world.service.positions["log"] in (end, "")
    assert all(worker.in_window and worker.counts for worker in chaos.world.service.fleet)
