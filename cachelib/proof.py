"""What a node's note says of itself: which start of its server has been told of everything, and up to when. Pure.

The invalidator writes the note on the node, behind a batch and on its connection (I11); see `invalidator/positions.py`.
A note that says anything unexpected proves nothing (I12).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from cachelib.model import Name

FORMAT = 1

Seen: TypeAlias = Callable[[str], bool]
"""Told which start of the server a connection leads to ("": it does not tell), before anything else is asked on it.
Answers whether that is another one than before, so that the connections opened earlier are to be closed."""


def tell(watchers: Iterable[Seen], instance: str) -> bool:
    """Tell all of them, and whether one of them had met another start before."""
    answers = [seen(instance) for seen in watchers]
    return any(answers)


@dataclass(frozen=True, slots=True)
class ProofNote:
    """`caught_up`: the start of the server that was told of every change up to its connecting. `store`: whose changes.

    `watermark_us`: the store's clock up to which every commit has been applied; None where nobody can know.
    `partitions`: of so many partitions. `entities`: the names of those whose changes were told; no others.
    """

    caught_up: str
    store: str
    watermark_us: int | None
    partitions: int
    entities: frozenset[str]


def proof_name(namespace: str) -> Name:
    """Where a node keeps its note. No item is named so: their second part has a dot."""
    return f"{namespace}/proof".encode()


def encode_proof(note: ProofNote) -> bytes:
    """As a person can read it."""
    document = {
        "format": FORMAT,
        "caught_up": note.caught_up,
        "store": note.store,
        "watermark_us": note.watermark_us,
        "partitions": note.partitions,
        "entities": sorted(note.entities),
    }
    return json.dumps(document).encode()


def decode_proof(raw: bytes | None) -> ProofNote | None:
    """None where there is none, or none of ours: then nothing is proven."""
    try:
        plain = json.loads(raw or b"null")
        if plain is None or plain["format"] != FORMAT:
            return None
        mark, entities = plain["watermark_us"], plain["entities"]
        if not (mark is None or type(mark) is int) or not isinstance(entities, list):
            return None
        names = frozenset(map(str, entities))
        return ProofNote(str(plain["caught_up"]), str(plain["store"]), mark, int(plain["partitions"]), names)
    except (ValueError, KeyError, TypeError):
        return None
