"""What `check` does: look at settings, store, log and nodes, and say what `run` would do."""

from __future__ import annotations

from collections.abc import Iterator

from cachelib.backends.base import Backend
from cachelib.errors import CacheError, ConfigError, MissingExtra, StoreError
from cachelib.stores import SqlStore
from invalidator.config import redacted
from invalidator.connecting import began_empty
from invalidator.daemon import is_logged, open_letters, open_nodes, open_store, read_rules
from invalidator.logs import open_log
from invalidator.onlooker import looking_on
from invalidator.positions import Begin, begin, found, note_names
from invalidator.rules import Rules
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource, Committed, Positions


def checked(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Lines that say what was found, and whether it is well. Raises `ConfigError`."""
    rules = read_rules(settings)
    nodes, store = open_nodes(settings), open_store(settings)
    letters = open_letters(settings, open_log(settings.log))
    try:
        for entity in rules.entities:
            tables = entity.table or ", ".join(entity.depends_on)
            yield f"entity {entity.name}: {entity.template.text} of {tables}", True
        yield from _checked_store(settings, store, rules)
        yield from _checked_log(settings, store, rules, nodes)
    finally:
        for _, node in nodes:
            node.close()
        if letters is not None:
            letters.close()
        store.close()


def _checked_store(settings: Settings, store: SqlStore, rules: Rules) -> Iterator[tuple[str, bool]]:
    where = f"store {redacted(settings.store_url())}"
    try:
        yield f"{where}: {store.identity()}", True
        logged = {table: is_logged(store, table) for table in rules.tables}
    except StoreError as error:
        yield f"{where}: {error}", False
        return
    for table, installed in logged.items() if settings.source.kind == "outbox" else ():
        said = "its changes are logged" if installed else "it is not installed: nothing is logged"
        yield f"table {table}: {said}", installed


def _checked_log(
    settings: Settings, store: SqlStore, rules: Rules, nodes: list[tuple[str, Backend]]
) -> Iterator[tuple[str, bool]]:
    try:
        with looking_on(settings, store, rules, open_log(settings.log)) as source:
            committed, start, end = source.committed([name for name, _ in nodes]), source.start(), source.end()
            for partition in sorted(end):
                place = committed.positions.get(partition) if committed else None
                goes_on = f"would go on from {_short(place)}" if place is not None else "nothing is committed"
                yield f"log {partition}: {_short(start[partition])} to {_short(end[partition])}; {goes_on}", True
            for node in nodes:
                yield _checked_node(settings, store, source, node, committed, end)
    except (ConfigError, MissingExtra):
        raise
    except CacheError as error:
        yield f"log: {error}", False


def _checked_node(
    settings: Settings,
    store: SqlStore,
    source: ChangeSource,
    node: tuple[str, Backend],
    committed: Committed | None,
    end: Positions,
) -> tuple[str, bool]:
    name, backend = node
    partitions = list(end)
    try:
        instance = backend.instance()
        raw = backend.read_notes(
            [note for at in partitions for note in note_names(settings.namespace, settings.consumer, at)]
        )
    except CacheError as error:
        return f"node {name}: {error}", False
    decision = begin(
        name,
        found(partitions, raw),
        partitions=partitions,
        committed=committed,
        store=store.identity(),
        highest=store.highest_version() if source.capability.versions else None,
        empty=False,
        unbroken=began_empty(backend),
        end=end,
        horizon=end,
        whole=source.capability.whole,
    )
    if isinstance(decision, Begin):
        places = ", ".join(_short(position) for _, position in sorted(decision.positions.items()))
        return f"node {name}: {instance}; would go on from {decision.why}, {places}", True
    return f"node {name}: {instance}; would give everything new epochs ({decision.why})", True


def _short(position: str) -> str:
    return position.partition("@")[0] or "the log's start"
