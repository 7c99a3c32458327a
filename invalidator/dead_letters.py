"""Changes that cannot be read or told apart, kept for people to look at. They are invalidated all the same.

Kept in a Kafka topic (`dead_letters_kafka.py`) or, for sources without Kafka, in a file here. `letterbox.py`
sees to it that the committed offset waits for them.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cachelib.errors import CacheError, ConfigError
from cachelib.model import RowChange
from invalidator.formats.relay import RelayEncoder
from invalidator.rules import Reading
from invalidator.sources.base import Event, Polled, Record


class NotKept(CacheError):
    """Dead letters could not be kept; the same ones may be tried again."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One of them: `kind` is undecodable, bad_key or unknown_table. `record` or else `change` is what it is about."""

    kind: str
    why: str
    partition: str
    position: str
    record: Record | None = None
    change: RowChange | None = None

    def origin(self) -> dict[str, str]:
        """What is wrong and where it came from, as text."""
        found = {"kind": self.kind, "error": self.why, "partition": self.partition, "position": self.position}
        if self.record is not None:
            found |= {
                "topic": self.record.topic,
                "partition": str(self.record.partition),
                "offset": str(self.record.offset),
                "timestamp": str(self.record.timestamp),
            }
        return found

    def told(self) -> bytes:
        """The change as JSON, where no record carried it."""
        return _AS_JSON.change(self.change, self.position)[1] if self.change is not None else b""


_AS_JSON = RelayEncoder("json")


class DeadLetters(Protocol):
    """Where they are kept."""

    def keep(self, letters: Sequence[Letter]) -> None:
        """Keep them durably, after those before. Raises `NotKept`: then perhaps some of them are."""

    def close(self) -> None:
        """Let go of everything."""


def letters_of(polled: Polled, reading: Reading, *, strangers: bool) -> list[Letter]:
    """What of a poll is to be kept. `strangers`: also changes of tables that nobody caches."""
    found = [Letter("undecodable", one.why, one.partition, one.position, one.record) for one in polled.poison]
    by_place = {(event.partition, event.position): (event, why) for event, why in reading.problems}
    found += [_letter("bad_key", why, event) for event, why in by_place.values()]
    if strangers:
        why = "no entity depends on table"
        found += [_letter("unknown_table", f"{why} {event.change.table!r}", event) for event in reading.strangers]
    return found


def _letter(kind: str, why: str, event: Event) -> Letter:
    return Letter(kind, why, event.partition, event.position, event.record, event.change)


class FileOfDeadLetters:
    """One JSON object a line. Beyond `bytes_max` a new file is begun; the one before is kept as `NAME.1`."""

    def __init__(self, path: str, bytes_max: int) -> None:
        self._path = Path(path)
        self._bytes_max = bytes_max
        if not self._path.parent.is_dir():
            raise ConfigError(f"dead_letters.file is {path!r}: there is no folder {str(self._path.parent)!r}")

    def keep(self, letters: Sequence[Letter]) -> None:
        """See `DeadLetters.keep`: written through to the disk."""
        lines = b"".join(json.dumps(_plain(letter)).encode() + b"\n" for letter in letters)
        try:
            if self._path.exists() and self._path.stat().st_size + len(lines) > self._bytes_max:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("a+b") as file:
                file.write(b"" if _ends_whole(file) else b"\n")  # a full disk, or a kill, left a part of a line
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NotKept(f"the file of dead letters, {self._path.name}: {error.strerror}") from error

    def close(self) -> None:
        """See `DeadLetters.close`: nothing is held open."""


def _ends_whole(file: BinaryIO) -> bool:
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _plain(letter: Letter) -> Mapping[str, Any]:
    found: dict[str, Any] = dict(letter.origin())
    if letter.record is not None:
        found |= {"key": _text(letter.record.key), "value": _text(letter.record.value)}
        found["headers"] = [(name, _text(value)) for name, value in letter.record.headers]
    elif letter.change is not None:
        found["change"] = json.loads(letter.told())
    return found


def _text(raw: bytes | None) -> Any:
    """As a person can read it; what is not text as base64."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw or b"").decode()}
