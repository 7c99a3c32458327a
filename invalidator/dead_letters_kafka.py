"""Dead letters in a Kafka topic: the record as it was, with what is wrong and where it came from in headers.

The headers are `leasecache.kind`, `.error`, `.topic`, `.partition`, `.offset`, `.timestamp`, `.position`; those that
the record had are kept. Where no record carried the change, the value is the change in the relay's JSON. What is too
large for the topic is cut: `.cut` is "true" where the value was, `.cut-key` where the key was, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from invalidator.dead_letters import Letter, NotKept
from invalidator.producer import NotSent, Outgoing, Producer, TooLarge

_PREFIX = "leasecache."
_ERROR_MAX = 2000
_CUT = 10_000
_KEY_CUT = 1000


class TopicOfDeadLetters:
    """See `DeadLetters`."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def keep(self, letters: Sequence[Letter]) -> None:
        """See `DeadLetters.keep`. What is too large for the topic is cut, and says so: it is at its origin, whole."""
        records = [_record(letter) for letter in letters]
        ways = [iter((_cut, _cut_key)) for _ in records]
        while True:
            try:
                return self._producer.send(records)
            except TooLarge as error:
                cut = next(ways[error.number], None)
                if cut is None:
                    raise NotKept(str(error)) from error
                records[error.number] = cut(records[error.number])
            except NotSent as error:
                raise NotKept(f"the topic of dead letters: {error}") from error

    def close(self) -> None:
        """See `DeadLetters.close`."""
        self._producer.close()


def _record(letter: Letter) -> Outgoing:
    origin = [(f"{_PREFIX}{name}", text[:_ERROR_MAX].encode()) for name, text in letter.origin().items()]
    if letter.record is None:
        return Outgoing(letter.told(), headers=origin)
    had = [(name, value or b"") for name, value in letter.record.headers]
    return Outgoing(letter.record.value, letter.record.key or b"", headers=[*had, *origin])


def _cut(record: Outgoing) -> Outgoing:
    headers = [(name, value) for name, value in record.headers if name.startswith(_PREFIX)]
    value = (record.value or b"")[:_CUT]
    return replace(record, value=value, headers=[*headers, (f"{_PREFIX}cut", b"true")])


def _cut_key(record: Outgoing) -> Outgoing:
    """Where the key alone is too large: else this letter, and the offset behind it, would wait for ever."""
    key = (record.key or b"")[:_KEY_CUT]
    return replace(record, key=key, value=b"", headers=[*record.headers, (f"{_PREFIX}cut-key", b"true")])
