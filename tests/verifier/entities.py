"""What the verifier's shop caches. In the shop its loads are slow (`PAUSE_S`): fills then come late."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cachelib import Entity, Row

pause_s = 0.0
"""The longest pause between reading a row and handing it on; the shop sets it, the verifier reads at once."""


def _pause() -> None:
    if pause_s and random.random() < 0.8:
        time.sleep(random.uniform(0, pause_s))


def _load(tx: Any, keys: Sequence[int]) -> Mapping[int, Row]:
    found = {}
    for key in keys:
        for note, group, version in tx.execute("select note, grp, row_version from things where id = :id", {"id": key}):
            found[key] = Row({"note": note, "group": group}, version)
    _pause()
    return found


def _load_of(tx: Any, keys: Sequence[int]) -> Mapping[int, Any]:
    asked = "select id, note from things where grp = :grp order by id"
    found = {key: [tuple(row) for row in tx.execute(asked, {"grp": key})] for key in keys}
    _pause()
    return found


things = Entity("things:{id:int}", table="things", key="id", load=_load)
things_of = Entity("things-of:{grp:int}", depends_on={"things": "grp"}, load=_load_of)
entities = [things, things_of]
