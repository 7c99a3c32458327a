"""Connecting to a node: which start of the server it is, how far it was told, and where to go on with it (I11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cachelib.backends.base import Backend, Tells
from cachelib.model import Name
from cachelib.places import node_name
from invalidator.duties import Duties
from invalidator.positions import Begin, Found, StartOver, begin, found, note_names
from invalidator.refreshes import Refreshes
from invalidator.session import Others, Session
from invalidator.sources.base import ChangeSource, Committed, Positions, covers, merged
from invalidator.watermark import Proof


def connect(
    name: str,
    backend: Backend,
    source: ChangeSource,
    duties: Duties,
    store: str,
    committed: Callable[[Positions], Committed | None],
    met: str = "",
) -> Session:
    """A session with the node. `committed`: the committed offset as far as this node is concerned.

    `met`: the start of its server that this process told last what counts; "" for none.

    Raises `CacheUnavailable`, `StoreError`.
    """
    end, elsewhere, now_us = source.end(), source.elsewhere(), duties.store.now_us()
    horizon = source.horizon()  # before it is seen to be empty: what is filled then may miss what comes
    instance = backend.instance()
    names = [name for at in end for name in note_names(duties.namespace, duties.consumer, at)]
    raw = backend.read_notes(names)
    notes = found(list(end), raw)
    # Another member may have been writing them until a moment ago, and so be further than we asked.
    far = end if covers(end, notes.positions) else source.end()
    decision = begin(
        name,
        notes,
        partitions=list(end),
        committed=committed(end),
        store=store,
        highest=duties.highest(),
        empty=_empty(backend),
        unbroken=instance == met or began_empty(backend),
        end=far,
        horizon=horizon,
        whole=source.capability.whole,
    )
    target = merged(end, elsewhere)
    session = Session(
        backend=backend,
        node=node_name(name),
        namespace=duties.namespace,
        consumer=duties.consumer,
        store=store,
        instance=instance,
        positions=_positions(name, decision, duties),
        proof=Proof(now_us, target),
        entities=duties.entities,
        refreshes=Refreshes(duties.settings.refresh_watch, duties.clock_s),
        others=Others(list(elsewhere), lambda: source.partitions() == len(target)),
        turns=dict(notes.turns),
        marks=dict(notes.marks) if isinstance(decision, Begin) else {},
        highest=notes.highest if isinstance(decision, Begin) else 0,
    )
    _begin(session, decision, notes, dict(zip(names, raw, strict=True)))
    session.check_instance()  # else the notes may be of another start of the server than the instance is
    return session


def _begin(session: Session, decision: Begin | StartOver, notes: Found, raw: Mapping[Name, bytes | None]) -> None:
    session.begun_anew = isinstance(decision, StartOver) or session.positions != notes.positions
    session.noted = session.positions
    if not session.begun_anew:
        session.written = {name: note for name, note in raw.items() if note is not None}


def _positions(name: str, decision: Begin | StartOver, duties: Duties) -> Positions:
    duties.metrics.connects.labels(name, decision.why).inc()
    if isinstance(decision, StartOver):
        duties.log.error("what a node holds cannot be trusted", node=name, why=decision.why)
        return duties.start_over(decision.why, False, node_name(name)).positions
    positions = merged(decision.positions, duties.epochs.pardoned(decision.positions, node_name(name)))
    duties.log.info("node connected", node=name, goes_on_from=decision.why, positions=dict(positions))
    return positions


def began_empty(backend: Backend) -> bool:
    """Whether this start of the server surely has nothing from before the start. Raises `CacheUnavailable`.

    Those that can have more, or cannot tell, have no `began_empty`.
    """
    tells = getattr(backend, "began_empty", None)
    return bool(tells()) if callable(tells) else False


def _empty(backend: Backend) -> bool:
    """Whether the node surely keeps nothing. Not every backend can tell."""
    return isinstance(backend, Tells) and backend.empty()
