"""Which format a topic has, seen from its first records; for who does not want to say it."""

from __future__ import annotations

from typing import Any

from invalidator.formats.base import Decoded, DecodeFailed, Decoder, Headers
from invalidator.formats.connect_json import UNREADABLE, Types, explain, unwrap
from invalidator.formats.debezium import Debezium
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from invalidator.formats.relay import JSON_START, Relay

_NO_TYPES = Types()


class Detect:
    """A `Decoder` that finds out, topic by topic, and looks again where a record is of another format.

    A flat row is taken for one only where it says so by metadata (`add.fields=op,table`, or rewritten deletes): any
    JSON object could be meant otherwise. A tombstone before anything else is read as a flattened topic's delete.
    """

    def __init__(
        self,
        debezium: Debezium | None = None,
        flattened: Flattened | None = None,
        router: OutboxRouter | None = None,
    ) -> None:
        self._debezium = debezium or Debezium()
        self._flattened = flattened or Flattened()
        self._router = router or OutboxRouter()
        self._relay = Relay()
        self._found: dict[str, Decoder] = {}

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """See `Decoder`."""
        known = self._found.get(topic)
        if known is not None:
            try:
                return known(topic, key, value, headers)
            except DecodeFailed:
                other = self.format_of(key, value, headers)
                if other is None or other is known:
                    raise
        decoder = self.format_of(key, value, headers)
        if decoder is not None:
            self._found[topic] = decoder
        elif value is None:
            decoder = self._flattened
        else:
            raise self._unknown(topic, key, value, headers)
        return decoder(topic, key, value, headers)

    def format_of(self, key: bytes | None, value: bytes | None, headers: Headers) -> Decoder | None:
        """The decoder for a record that shows its format; else None."""
        if (value is not None and value.startswith(JSON_START)) or (value or b"")[:1] in _MSGPACK_ARRAYS:
            return self._relay
        try:
            found = None if value is None else unwrap(value, "", _NO_TYPES)[0]
        except UNREADABLE:
            found = None
        if self._router.tells(headers, found):
            return self._router
        if isinstance(found, dict) and (
            _is_debezium(found) or (set(found) == {"ts_ms"} and b'"serverName"' in (key or b""))
        ):
            return self._debezium
        names = {*(found if isinstance(found, dict) else ()), *(name for name, _ in headers)}
        return self._flattened if names & {"__op", "__deleted", "__table"} else None

    def _unknown(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> DecodeFailed:
        try:
            unwrap(value, "", _NO_TYPES)
            why = "no format that is known shows in it: name the topic's format"
        except UNREADABLE as error:
            why = explain(error, value)
        try:  # for what is to be invalidated all the same
            self._debezium(topic, key, b"", headers)
        except DecodeFailed as failed:
            return DecodeFailed(f"{topic}: {why}", failed.instead)
        return DecodeFailed(f"{topic}: {why}")


_MSGPACK_ARRAYS = frozenset(bytes((first,)) for first in (*range(0x90, 0xA0), 0xDC, 0xDD))


def _is_debezium(found: dict[str, Any]) -> bool:
    source = found.get("source")
    return (isinstance(source, dict) and "connector" in source) or {"status", "data_collections"} <= set(found)
