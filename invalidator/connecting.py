"""Connecting to a node: which start of the server it is, how far it was told, and where to go on with it (I11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cachelib.backends.base import Backend, Tells
from cachelib.model import Name
from cachelib.places import node_name
from invalidator.duties import Duties
from invalidator.positions import Begin, Found, StartOver, begin, found, note_names
from invalidator.refreshes import Refreshes
from invalidator.session import Others, Session
from invalidator.sources.base import ChangeSource, Committed, Positions, covers, merged
from invalidator.watermark import Proof


@dataclass(frozen=True, slots=True)
class _Met:
    """What a node and the log said, in this order, and what follows from it."""

    end: Positions
    elsewhere: Positions
    now_us: int
    instance: str
    notes: Found
    raw: Mapping[Name, bytes | None]
    decision: Begin | StartOver

    @property
    def begins(self) -> bool:
        """It goes on; else it starts over."""
        return isinstance(self.decision, Begin)


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
    here = _meet(name, backend, source, duties, store, committed, met)
    target = merged(here.end, here.elsewhere)
    session = Session(
        backend=backend,
        node=node_name(name),
        namespace=duties.namespace,
        consumer=duties.consumer,
        store=store,
        instance=here.instance,
        positions=_positions(name, here.decision, duties),
        proof=Proof(here.now_us, target),
        entities=duties.entities,
        refreshes=Refreshes(duties.settings.refresh_watch, duties.clock_s),
        others=Others(list(here.elsewhere), lambda: source.partitions() == len(target)),
        turns=dict(here.notes.turns),
        marks=dict(here.notes.marks) if here.begins else {},
        highest=here.notes.highest if here.begins else 0,
    )
    _begin(session, here)
    session.check_instance()  # else the notes may be of another start of the server than the instance is
    return session


def _meet(
    name: str,
    backend: Backend,
    source: ChangeSource,
    duties: Duties,
    store: str,
    committed: Callable[[Positions], Committed | None],
    met: str,
) -> _Met:
    """Ask the log, then the node, and decide where to go on."""
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
    return _Met(end, elsewhere, now_us, instance, notes, dict(zip(names, raw, strict=True)), decision)


def _begin(session: Session, met: _Met) -> None:
    session.begun_anew = not met.begins or session.positions != met.notes.positions
    session.noted = session.positions
    if not session.begun_anew:
        session.written = {name: note for name, note in met.raw.items() if note is not None}


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
