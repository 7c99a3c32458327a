"""What `check` and `replay` do: look at store, nodes and log without being a consumer of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from cachelib.backends.base import Backend
from cachelib.effects import Effect
from cachelib.errors import CacheError, ConfigError, LayoutConflict, StoreError
from cachelib.layout import Layout, decode_layout, encode_layout, first_layout
from cachelib.model import RaiseFloor
from cachelib.stores import SqlStore
from invalidator.config import redacted
from invalidator.daemon import is_logged, open_nodes, open_store, read_rules
from invalidator.positions import Begin, begin, found, note_names
from invalidator.rules import Rules
from invalidator.session import batch_for
from invalidator.settings import Settings
from invalidator.sources.base import Committed, Event, Positions
from invalidator.sources.outbox import PARTITION, Outbox

_SHOWN_MAX = 1000
_BATCH = 1000


def checked(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Lines that say what was found, and whether it is well. Raises `ConfigError`."""
    rules = read_rules(settings)
    nodes, store = open_nodes(settings), open_store(settings)
    try:
        for entity in rules.entities:
            tables = entity.table or ", ".join(entity.depends_on)
            yield f"entity {entity.name}: {entity.template.text} of {tables}", True
        yield from _checked_store(settings, store, rules, nodes)
    finally:
        for _, node in nodes:
            node.close()
        store.close()


def _checked_store(
    settings: Settings, store: SqlStore, rules: Rules, nodes: list[tuple[str, Backend]]
) -> Iterator[tuple[str, bool]]:
    try:
        identity = store.identity()
        source = Outbox(store, settings.consumer)
        committed, end = source.committed([name for name, _ in nodes]), source.end()
    except StoreError as error:
        yield f"store {redacted(settings.store_url())}: {error}", False
        return
    start = committed.positions[PARTITION] if committed else "the start of the log"
    yield f"store {redacted(settings.store_url())}: {identity}; would go on from {start}, the log ends at {end}", True
    for table in rules.tables:
        installed = is_logged(store, table)
        yield (
            f"table {table}: {'its changes are logged' if installed else 'it is not installed: nothing is logged'}",
            installed,
        )
    for name, backend in nodes:
        yield _checked_node(settings, store, (name, backend), committed, end)


def _checked_node(
    settings: Settings, store: SqlStore, node: tuple[str, Backend], committed: Committed | None, end: Positions
) -> tuple[str, bool]:
    name, backend = node
    try:
        instance = backend.instance()
        raw = backend.read_notes(note_names(settings.namespace, settings.consumer, PARTITION))
    except CacheError as error:
        return f"node {name}: {error}", False
    decision = begin(
        name,
        found([PARTITION], raw),
        partitions=[PARTITION],
        committed=committed,
        store=store.identity(),
        highest=store.highest_version(),
        empty=False,
        end=end,
    )
    if isinstance(decision, Begin):
        where = decision.positions[PARTITION] or "the log's start"
        return f"node {name}: {instance}; would go on from {decision.why}, {where}", True
    return f"node {name}: {instance}; would give everything new epochs ({decision.why})", True


def pending(settings: Settings) -> Iterator[tuple[str, bool]]:
    """The keys of each change behind the committed offset, applying nothing. Raises `StoreError`, `LogGap`."""
    rules, store = read_rules(settings), open_store(settings)
    try:
        store.identity()  # creates the log where there is none
        source = Outbox(store, settings.consumer)
        committed = source.committed(())
        source.seek(committed.positions if committed else {PARTITION: ""})
        shown = 0
        for event in _events(source):
            shown += 1
            if shown > _SHOWN_MAX:
                yield f"... and more; {_SHOWN_MAX} are shown", True
                return
            yield from _explained(rules, event)
        yield f"{shown} changes wait", True
    finally:
        store.close()


def _events(source: Outbox) -> Iterator[Event]:
    while events := source.poll(_BATCH, 0).events:
        yield from events


def _explained(rules: Rules, event: Event) -> Iterator[tuple[str, bool]]:
    change, reading = event.change, rules.read([event])
    head = f"{event.position} {change.op} {change.table} {dict(change.key)} version {change.version}"
    for effect in reading.effects:
        yield f"{head} -> {effect.text.decode()}: {_said(effect)}", True
    for _, entity, reason in reading.renew:
        yield f"{head} -> a new epoch for {entity} ({reason})", reason != "bad_key"
    if not reading.effects and not reading.renew:
        yield f"{head} -> nothing that is cached", True


def _said(effect: Effect) -> str:
    op = effect.op()
    return f"raise the floor to {op.version}" if isinstance(op, RaiseFloor) else "revoke"


# --- replay ----------------------------------------------------------------------------------


def replayed(settings: Settings, start: str) -> Iterator[str]:
    """Apply the log again, from a position to its end of now, to every node. Leaves positions alone."""
    rules = read_rules(settings)
    nodes, store = open_nodes(settings), open_store(settings)
    try:
        store.identity()
        source = Outbox(store, settings.consumer)
        first = source.start()[PARTITION] if start.upper() == "START" else start
        end = source.end()[PARTITION]
        source.seek({PARTITION: first})
        done = keys = 0
        while events := source.poll(_BATCH, 0).events:
            reading = rules.read(events)
            if reading.renew:
                names = ", ".join(sorted({entity for _, entity, _ in reading.renew}))
                yield f"changes of {names} name no key: clear these (cachelib clear)"
            _apply(settings, _layout(store), reading.effects, [node for _, node in nodes])
            done, keys = done + len(events), keys + len(reading.effects)
            if events[-1].position >= end:
                break
        yield f"replayed {done} changes from {first or 'the start'} on: {keys} keys on {len(nodes)} nodes"
    finally:
        for _, node in nodes:
            node.close()
        store.close()


def _apply(settings: Settings, layout: Layout, effects: list[Effect], nodes: Iterable[Backend]) -> None:
    batch = batch_for(layout, settings.namespace, effects)
    for node in nodes:
        for result in node.apply(batch, {}, time.time_ns() // 1_000_000):
            if isinstance(result, CacheError):
                raise result


def _layout(store: SqlStore) -> Layout:
    document = store.read_layout()
    if document is None:
        document = encode_layout(first_layout())
        try:
            store.write_layout(document, None)
        except LayoutConflict as error:
            raise ConfigError("the store got its first layout just now: try again") from error
    return decode_layout(document)
