"""How far the log has been applied to a node: what is written there, and what follows from it (I11). Pure.

For each partition a node keeps two notes, written in turn, each behind a batch and on its
connection. A note says from where to where its batch led, so the two must join:

    the node restarts from an old snapshot, and nobody notices: its notes say (..90) and (90..95)
    a batch is applied and leaves (120..130) in the place of (..90)
    (90..95) and (120..130) do not join: what lies between was lost, so the node is at 95

One note alone would say 130. So one that is alone says nothing: the snapshot may be from before the first of them,
and whoever began anew is believed when his second note has joined the first.

What a first look tells leads nowhere yet, and may be lost all the same. So each batch leaves a note, and a note has a
mark and names the one before it, by which two join that say the same places:

    notes (..90) a and (90..90) b; a snapshot is made; a first look at 91 is told, and leaves (90..90) c after b
    the node restarts from the snapshot, and nobody notices; 91 can be read as it was told: nothing more to tell
    (90..91) d after c is left in the place of a; it does not join b, so the node is at 90
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachelib.model import Name
from invalidator.sources.base import Committed, Positions, covers, log_of, merged

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `highest`: the highest version that was ever applied. `store`: whose log it was. `mark`: its own name,
    and `follows`: that of the note before it; "" where nobody knows, as in those of earlier versions.
    """

    since: str
    upto: str
    highest: int
    store: str
    watermark_us: int | None = None
    mark: str = ""
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a node's notes say, taken together. A partition without notes is not in `positions`."""

    positions: Positions
    turns: Mapping[str, int]
    """Which of the two places the next note goes to."""
    highest: int
    stores: frozenset[str]
    logs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By partition, the logs that its notes are of."""
    watermarks_us: Mapping[str, int] = field(default_factory=dict)
    """By partition, up to when each of its commits is applied, where the notes say so."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """By partition, the mark of the note that is followed next."""


NOTHING_FOUND = Found({}, {}, 0, frozenset())


def note_names(namespace: str, consumer: str, partition: str) -> tuple[Name, Name]:
    """Where the two notes of a partition are kept on a node. No item is named so: their second part has a dot."""
    head = f"{namespace}/position/{consumer}/{partition}/"
    return f"{head}0".encode(), f"{head}1".encode()


def encode_note(note: Note) -> bytes:
    """As a person can read it."""
    document: dict[str, Any] = {"format": FORMAT, "since": note.since, "upto": note.upto, "highest": note.highest}
    document |= {"store": note.store, "watermark_us": note.watermark_us, "mark": note.mark, "follows": note.follows}
    return json.dumps(document).encode()


def decode_note(raw: bytes | None) -> Note | None:
    """None where there is none, or none of ours: then nothing is proven."""
    try:
        plain = json.loads(raw or b"null")
        if plain is None or plain["format"] != FORMAT:
            return None
        watermark_us = plain.get("watermark_us")
        told_us = int(watermark_us) if watermark_us is not None else None
        place = str(plain["since"]), str(plain["upto"]), int(plain["highest"]), str(plain["store"])
        return Note(*place, told_us, str(plain.get("mark", "")), str(plain.get("follows", "")))
    except (ValueError, KeyError, TypeError):
        return None


def found(partitions: Sequence[str], raw: Sequence[bytes | None]) -> Found:
    """Put together the notes of all partitions, given in the order of `note_names`."""
    positions: dict[str, str] = {}
    turns: dict[str, int] = {}
    kept: list[Note] = []
    logs: dict[str, frozenset[str]] = {}
    watermarks_us: dict[str, int] = {}
    marks: dict[str, str] = {}
    for number, partition in enumerate(partitions):
        notes = [decode_note(one) for one in raw[2 * number : 2 * number + 2]]
        kept += [note for note in notes if note is not None]
        logs[partition] = frozenset(log_of(note.upto) for note in notes if note is not None)
        note = _joined(notes)
        if note is None:
            continue
        positions[partition] = note.upto
        turns[partition] = 1 if note is notes[0] else 0
        marks[partition] = note.mark
        if note.watermark_us is not None:
            watermarks_us[partition] = note.watermark_us
    highest = max((note.highest for note in kept), default=0)
    return Found(positions, turns, highest, frozenset(note.store for note in kept), logs, watermarks_us, marks)


def _joined(notes: Sequence[Note | None]) -> Note | None:
    """The one up to which nothing is missing."""
    present = sorted((note for note in notes if note is not None), key=lambda note: note.upto)
    if len(present) < len(notes):
        return None
    first, last = present
    if first.upto == last.upto and first.mark and last.follows != first.mark:
        first, last = last, first
    return last if last.since <= first.upto and last.follows in ("", first.mark) else first


# --- where to begin --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Go on with this node behind these positions."""

    positions: Positions
    why: str


@dataclass(frozen=True, slots=True)
class StartOver:
    """What the node holds cannot be trusted: everything gets a new epoch."""

    why: str


def begin(
    node: str,
    notes: Found,
    *,
    partitions: Collection[str],
    committed: Committed | None,
    store: str,
    highest: int | None,
    empty: bool,
    unbroken: bool,
    end: Positions,
    horizon: Positions,
    whole: bool = True,
) -> Begin | StartOver:
    """Where to go on with a node that has just been connected to.

    `highest`: the highest version that the store has given out; None where it does not tell.
    `empty`: the node surely keeps nothing. `unbroken`: its server has not gone back since it counted. Another start
    may have come back with what was there before the first note. `end`: the log's end, read before. `horizon`: see
    `ChangeSource.horizon`; asked for before the node was seen to be empty. `whole`: the log begins with
    the first change there was, see `Capability.whole`.
    """
    if notes.stores - {store}:
        return StartOver("store_changed")
    if highest is not None and notes.highest > highest:
        return StartOver("store_went_back")
    if any(found_in - {log_of(end.get(at, ""))} for at, found_in in notes.logs.items()):
        return StartOver("log_replaced")  # its offsets mean something else now
    if not covers(end, notes.positions):
        return StartOver("store_went_back")  # no log leads where it was
    missing = set(partitions) - set(notes.positions)
    if not missing:
        return Begin(notes.positions, "its own position")
    if committed is not None and (empty or (unbroken and node in committed.counted)):
        # It counted, so the committed offset waited for it: whatever it has lost lies behind that.
        base = {at: position for at, position in committed.positions.items() if at in missing}
        if missing <= set(base):
            return Begin(merged(notes.positions, base), "the committed offset")
    if empty:
        return Begin(merged(horizon, {}), "the log's end: it is empty")
    if committed is None and whole:
        # Nobody has ever read this log. If it still is whole, it tells all that there is to know;
        # if it is not, reading it from the start is a gap.
        return Begin(dict.fromkeys(partitions, ""), "the log's start")
    return StartOver("unknown_node")
