r"""The relay's own format: a change of the log, or a heartbeat, as MessagePack or as JSON.

Everything of a `RowChange` arrives as it was, but for what JSON has no word for: there a UUID and a date are
text, and bytes are `\x` and hex, as the change log writes them; keys come out the same. Records of a later
format have another tag and are refused, not misread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from cachelib.model import U64_MAX, ChangeOp, RowChange
from cachelib.policy import one_of
from invalidator.formats.base import Changes, Decoded, DecodeFailed, Headers, Heartbeat, doubtful_row, doubtful_table
from invalidator.formats.columns import UNFIT
from invalidator.formats.connect_json import UNREADABLE, explain, number_hook

JSON_START = b'{"leasecache":'
_CHANGE, _HEARTBEAT = "change/1", "heartbeat/1"
_DECIMAL, _DATE, _UUID, _DATETIME = 1, 2, 3, 4  # MessagePack's extensions
_I64_MIN = -(2**63)


class _Change(msgspec.Struct, tag=_CHANGE, tag_field="leasecache"):
    table: str
    op: ChangeOp
    key: dict[str, Any]
    version: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    tx: int | None = None
    at_us: int = 0
    position: str = ""


class _Heartbeat(msgspec.Struct, tag=_HEARTBEAT, tag_field="leasecache"):
    at_us: int
    watermark_us: int | None = None
    partitions: int = 0
    position: str = ""


class _PackedChange(_Change, tag=_CHANGE, array_like=True):
    """Without the fields' names: a quarter of the size."""


class _PackedHeartbeat(_Heartbeat, tag=_HEARTBEAT, array_like=True):
    """The same."""


def _from_ext(code: int, data: memoryview) -> Any:
    try:
        if code == _UUID:
            return UUID(bytes=bytes(data))
        kinds = {_DECIMAL: number_hook, _DATE: date.fromisoformat, _DATETIME: datetime.fromisoformat}
        return kinds[code](bytes(data).decode())
    except UNFIT as error:
        raise ValueError(f"extension {code}: {error!r}") from error


_TO_JSON = msgspec.json.Encoder(decimal_format="number")
_TO_MSGPACK = msgspec.msgpack.Encoder()
_FROM_JSON = msgspec.json.Decoder(_Change | _Heartbeat, float_hook=number_hook)
_FROM_MSGPACK = msgspec.msgpack.Decoder(_PackedChange | _PackedHeartbeat, ext_hook=_from_ext)
_KEY = msgspec.json.Decoder(tuple[str, dict[str, Any]], float_hook=number_hook)


class RelayEncoder:
    """What the relay sends. Raises `ConfigError` for another format."""

    def __init__(self, form: Literal["msgpack", "json"] = "msgpack") -> None:
        one_of("the relay's format", form, ("msgpack", "json"))
        self._packed = form == "msgpack"

    def change(self, change: RowChange, position: str = "") -> tuple[bytes, bytes]:
        """Key and value of the record. The key names the row, so that a row's changes share a partition."""
        wrap = _packed if self._packed else _jsonable
        kind = _PackedChange if self._packed else _Change
        record = kind(
            change.table,
            change.op,
            _columns(change.key, wrap),
            change.version,
            None if change.before is None else _columns(change.before, wrap),
            None if change.after is None else _columns(change.after, wrap),
            change.tx,
            change.at_us,
            position,
        )
        key = _TO_JSON.encode((change.table, _columns(dict(sorted(change.key.items())), _jsonable)))
        return key, self._encode(record)

    def heartbeat(self, heartbeat: Heartbeat) -> bytes:
        """The value of a record without a key, for each partition."""
        kind = _PackedHeartbeat if self._packed else _Heartbeat
        at = heartbeat
        return self._encode(kind(at.at_us, at.watermark_us, at.partitions, at.position))

    def _encode(self, record: _Change | _Heartbeat) -> bytes:
        return _TO_MSGPACK.encode(record) if self._packed else _TO_JSON.encode(record)


class Relay:
    """A `Decoder` of both forms; a topic may have both, as after a change of the setting."""

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """See `Decoder`."""
        if value is None:
            raise DecodeFailed(f"{topic}: a record without a value, which the relay never sends", _instead(key))
        try:
            record = _FROM_JSON.decode(value) if value[:1] == b"{" else _FROM_MSGPACK.decode(value)
        except UNREADABLE as error:
            why = f"{topic}: not a record of the relay, or of a later one: {explain(error, value)}"
            raise DecodeFailed(why, _instead(key)) from error
        if isinstance(record, _Heartbeat):
            return Heartbeat(record.at_us, record.watermark_us, record.partitions, record.position)
        if record.version is not None and not 0 < record.version <= U64_MAX:
            raise DecodeFailed(f"{topic}: version {record.version} is none", _instead(key))
        return Changes((_row_change(record),), record.position)


def _row_change(record: _Change) -> RowChange:
    """An image that should be there and is not is unknown: only the key's columns are in it."""
    before, after, op = record.before, record.after, record.op
    if before is None and op in ("update", "delete"):
        before = record.key
    if after is None and op in ("create", "update"):
        after = record.key
    return RowChange(record.table, op, record.key, record.version, before, after, record.tx, record.at_us)


def _instead(key: bytes | None) -> tuple[RowChange, ...]:
    try:
        table, columns = _KEY.decode(key or b"")
    except UNREADABLE:
        return ()
    return doubtful_row(table, columns) if columns else doubtful_table(table)


def _columns(row: Mapping[str, Any], wrap: Any) -> dict[str, Any]:
    return {name: value if type(value) in (str, bool) else wrap(value) for name, value in row.items()}


def _packed(value: Any) -> Any:
    match value:
        case Decimal():
            return msgspec.msgpack.Ext(_DECIMAL, str(value).encode())
        case int() if not isinstance(value, bool) and not _I64_MIN <= value <= U64_MAX:
            return msgspec.msgpack.Ext(_DECIMAL, str(value).encode())
        case datetime():
            return msgspec.msgpack.Ext(_DATETIME, value.isoformat().encode())
        case date():
            return msgspec.msgpack.Ext(_DATE, value.isoformat().encode())
        case UUID():
            return msgspec.msgpack.Ext(_UUID, value.bytes)
        case list() | tuple():
            return [_packed(part) for part in value]
        case dict():
            return {name: _packed(part) for name, part in value.items()}
    return value


def _jsonable(value: Any) -> Any:
    match value:
        case bytes():
            return f"\\x{value.hex()}"
        case Decimal() if not value.is_finite():
            return str(value)
        case float() if not math.isfinite(value):
            return str(value)
        case list() | tuple():
            return [_jsonable(part) for part in value]
        case dict():
            return {name: _jsonable(part) for name, part in value.items()}
    return value
