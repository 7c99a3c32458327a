"""`invalidator replay` and `check --dry-run`: the log once more, from a place that a person names to its end of now.

Neither is a consumer: no position and no offset moves. Applying changes again is always harmless (I9).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from cachelib.effects import Effect
from cachelib.errors import CacheError, StoreError
from cachelib.layout import Layout
from cachelib.model import RaiseFloor
from cachelib.stores import SqlStore
from invalidator.daemon import open_nodes, open_store, reached, read_rules
from invalidator.epochs import Epochs
from invalidator.logs import Log, open_log
from invalidator.metrics import Metrics
from invalidator.onlooker import looking_on, place_of
from invalidator.roster import Roster
from invalidator.rules import Reading, Rules
from invalidator.session import batch_for
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource, Event, Poison, Polled, Positions, covers

_BATCH = 1000
_POLL_S = 0.5
_STUCK_S = 30.0
_CURRENT_S = 30.0
_LOOK_S = 0.2


def polls(source: ChangeSource, start: Positions, end: Positions) -> Iterator[Polled]:
    """What stands between two places. Raises `LogGap`, and `StoreError` where nothing more comes."""
    reader = source.reader(start)
    heard_s = time.monotonic()
    done = dict(start)
    try:
        while not covers(done, {at: position for at, position in end.items() if at in start}):
            polled = reader.poll(_BATCH, _POLL_S)
            done = dict(polled.after)
            if done != dict(polled.before):
                heard_s = time.monotonic()
                yield polled
            elif source.capability.kind == "outbox":
                return  # what is left belongs to transactions that still run
            elif time.monotonic() - heard_s > _STUCK_S:
                raise StoreError(f"nothing comes behind {done}, and the log ends at {dict(end)}")
    finally:
        if reader is not source:
            reader.close()


# --- looking ---------------------------------------------------------------------------------


def pending(settings: Settings, start: str | None, sample: int) -> Iterator[tuple[str, bool]]:
    """The keys of each change from a place on (None: what is committed), applying nothing; whether they can be told."""
    rules, store, log = read_rules(settings), open_store(settings), open_log(settings.log)
    try:
        store.identity()  # creates the log where there is none
        with looking_on(settings, store, rules, log) as source:
            yield from _pending(source, rules, _from(source, start, store), sample)
    finally:
        store.close()


def _from(source: ChangeSource, start: str | None, store: SqlStore) -> Positions:
    if start is not None:
        return place_of(source, start, store.now_us)
    committed, first = source.committed(()), source.start()
    return first if committed is None else {at: committed.positions.get(at, first[at]) for at in first}


def _pending(source: ChangeSource, rules: Rules, start: Positions, sample: int) -> Iterator[tuple[str, bool]]:
    shown = 0
    for polled in polls(source, start, source.end()):
        both: list[Event | Poison] = [*polled.events, *polled.poison]
        for one in sorted(both, key=lambda found: (found.partition, found.position)):
            if shown == sample:
                yield f"... and more; {sample} are shown", True
                return
            shown += 1
            yield from _explained(rules, one)
    yield f"{shown} changes wait", True


def _explained(rules: Rules, one: Event | Poison) -> Iterator[tuple[str, bool]]:
    if isinstance(one, Poison):
        reading, head, fine = rules.read((), [one]), f"{_place(one)} cannot be read ({one.why})", False
    else:
        change = one.change
        reading, fine = rules.read([one]), True
        head = f"{_place(one)} {change.op} {change.table} {dict(change.key)} version {change.version}"
    for effect in reading.effects:
        yield f"{head} -> {effect.text.decode()}: {_said(effect)}", fine
    for _, entity, reason in reading.renew:
        yield f"{head} -> a new epoch for {entity} ({reason})", fine and reason != "bad_key"
    if not reading.effects and not reading.renew:
        yield f"{head} -> nothing that is cached", fine


def _place(one: Event | Poison) -> str:
    position = one.position.partition("@")[0]
    return f"{one.partition} {position}"


def _said(effect: Effect) -> str:
    op = effect.op()
    return f"raise the floor to {op.version}" if isinstance(op, RaiseFloor) else "revoke"


# --- replay ----------------------------------------------------------------------------------


def replayed(settings: Settings, start: str) -> Iterator[str]:
    """Apply the log again, from a place to its end of now, to every node. Leaves positions alone."""
    rules, nodes, store, log = read_rules(settings), open_nodes(settings), open_store(settings), open_log(settings.log)
    try:
        store.identity()
        with looking_on(settings, store, rules, log) as source:
            first = place_of(source, start, store.now_us)
            roster = Roster(nodes, lambda name: reached(settings, name))
            yield from _replayed(settings, source, first, rules, roster, store, log)
    finally:
        for _, node in nodes:
            node.close()
        store.close()


def _replayed(
    settings: Settings,
    source: ChangeSource,
    first: Positions,
    rules: Rules,
    roster: Roster,
    store: SqlStore,
    log: Log,
) -> Iterator[str]:
    epochs = Epochs(store, Metrics(), log)
    done = keys = 0
    renewed: set[str] = set()
    for polled in polls(source, first, source.end()):
        reading = rules.read(polled.events, polled.poison)
        renewed |= _entities(reading)
        _apply(settings, epochs.layout(), reading.effects, roster)
        done, keys = done + len(polled.events) + len(polled.poison), keys + len(reading.effects)
    if renewed:
        names = ", ".join(sorted(renewed))
        yield f"changes of {names} name no key: giving new epochs"
        epochs.renew(renewed, "replay")
        _complete(epochs)
    places = ", ".join(f"{at} {position.partition('@')[0] or 'the start'}" for at, position in sorted(first.items()))
    yield f"replayed {done} changes from {places} on: {keys} keys on {len(roster.of(epochs.layout()))} nodes"


def _entities(reading: Reading) -> set[str]:
    return {entity for _, entity, _ in reading.renew}


def _apply(settings: Settings, layout: Layout, effects: list[Effect], roster: Roster) -> None:
    for place, (_, node) in roster.of(layout).items():
        batch = batch_for(layout, settings.namespace, effects, place)
        for result in node.apply(batch, {}, time.time_ns() // 1_000_000):
            if isinstance(result, CacheError):
                raise result


def _complete(epochs: Epochs) -> None:
    """No daemon may be running that would complete what is published."""
    until_s = time.monotonic() + _CURRENT_S
    while epochs.layout().next is not None and time.monotonic() < until_s:
        epochs.keep()
        time.sleep(_LOOK_S)
