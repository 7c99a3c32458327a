"""JSON as Kafka Connect's converter writes it, with the schema beside every record or without.

A schema is told again in each record and is four fifths of it. It is not parsed again: its bytes are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from invalidator.formats.columns import UNFIT, Convert, Encodings, by_schema, by_sql_type

UNREADABLE = (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError)
"""What reading JSON raises, whatever is in it."""
_SCHEMAS_MAX = 512
_DIGITS_MAX = 200_000

Plan = tuple[tuple[str, Convert], ...]
"""The columns of a row that are not what JSON says."""


def exact(text: str) -> Decimal:
    """A number with a point or an exponent, as it was written. Raises `ValueError`."""
    number = Decimal(text) if len(text) < _DIGITS_MAX else None
    if number is None or abs(number.adjusted()) > _DIGITS_MAX:
        raise ValueError("a number with more digits than any database keeps")
    return number


def number_hook(text: str) -> Decimal:
    """`exact`, for msgspec: what `Decimal` itself raises becomes the `ValueError` that is expected of a hook."""
    try:
        return exact(text)
    except ArithmeticError as error:
        raise ValueError(f"{text[:40]} is not a number") from error


class _Field(msgspec.Struct):
    type: str = ""
    field: str = ""
    name: str | None = None
    parameters: dict[str, Any] | None = None
    fields: list[_Field] | None = None


class _Wrapped(msgspec.Struct):
    schema: msgspec.Raw
    payload: Any


_ANY = msgspec.json.Decoder(float_hook=number_hook)
_WRAPPED = msgspec.json.Decoder(_Wrapped, float_hook=number_hook)
_SCHEMA = msgspec.json.Decoder(_Field)


class Types:
    """What columns are: from schemas that come with records, and as said for tables whose records have none.

    Args:
        said: SQL types by table and column; needed for columns of keys that are dates, decimals or bytes where the
            topic has no schemas (or writes decimals as text). Where said, they go before a schema.
        encodings: how the connector writes them.

    Raises:
        ConfigError: not a type.
    """

    def __init__(self, said: Mapping[str, Mapping[str, str]] | None = None, encodings: Encodings | None = None) -> None:
        self._encodings = encodings or Encodings()
        self._said: dict[str, Plan] = {}
        self._columns: dict[str, frozenset[str]] = {}
        self._plans: dict[tuple[bytes, str, str], Plan] = {}
        for table, columns in (said or {}).items():
            self.say(table, columns)

    def say(self, table: str, columns: Mapping[str, str]) -> None:
        """What a table's columns are, from now on; also while others read. Raises `ConfigError`."""
        converted = ((name, by_sql_type(sql_type, self._encodings)) for name, sql_type in columns.items())
        self._said[table] = tuple((name, convert) for name, convert in converted if convert is not None)
        self._columns[table] = frozenset(columns)
        self._plans.clear()

    def plan(self, table: str, schema: bytes, part: str = "") -> Plan:
        """The conversions of a table's rows; `part` is the schema's field that holds the row. Raises `UNREADABLE`."""
        if not schema or schema == b"null":
            return self._said.get(table, ())
        at = (schema, table, part)
        found = self._plans.get(at)
        if found is None:
            found = self._read(table, schema, part)
            if len(self._plans) >= _SCHEMAS_MAX:
                self._plans.clear()  # tables change their schema now and then, not all the time
            self._plans[at] = found
        return found

    def _read(self, table: str, schema: bytes, part: str) -> Plan:
        root = _SCHEMA.decode(schema)
        fields = root.fields or []
        if part:
            fields = next((field.fields or [] for field in fields if field.field == part), [])
        said = self._columns.get(table, frozenset())
        return self._said.get(table, ()) + tuple(
            (field.field, convert) for field, convert in _conversions(fields) if field.field not in said
        )


def _conversions(fields: list[_Field]) -> Iterator[tuple[_Field, Convert]]:
    for field in fields:
        try:
            convert = by_schema(field.type, field.name, field.parameters)
        except UNFIT as error:
            raise ValueError(f"the schema of column {field.field!r} makes no sense: {error!r}") from error
        if convert is not None:
            yield field, convert


def convert_columns(row: dict[str, Any], plan: Plan) -> None:
    """Put the values right. What cannot be is left out: unknown."""
    for column, convert in plan:
        value = row.get(column)
        if value is not None:
            try:
                row[column] = convert(value)
            except UNFIT:
                del row[column]


def read_row(text: bytes, table: str, types: Types) -> dict[str, Any]:
    """A record's key, or a flat value: an object of columns. Raises `UNREADABLE`, also where a column is not right."""
    row, plan = unwrap(text, table, types)
    if not isinstance(row, dict):
        raise ValueError(f"it is {_kind(row)}, not an object of columns")
    for column, convert in plan:
        value = row.get(column)
        if value is not None:
            try:
                row[column] = convert(value)
            except UNFIT as error:
                raise ValueError(f"column {column!r} is {str(value)[:40]!r}, which is not of its type") from error
    return row


def unwrap(text: bytes, table: str, types: Types) -> tuple[Any, Plan]:
    """What is in a record, without the schema, and what the schema says. Raises `UNREADABLE`."""
    if text.startswith(b'{"schema":'):  # as the converter writes it; a column may be called so, too
        try:
            wrapped = _WRAPPED.decode(text)
            return wrapped.payload, types.plan(table, bytes(wrapped.schema))
        except msgspec.ValidationError:
            pass
    return _ANY.decode(text), types.plan(table, b"")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def exact_json(text: bytes) -> Any:
    """Any JSON, without a schema. Raises `UNREADABLE`."""
    return _ANY.decode(text)


def explain(error: Exception, text: bytes) -> str:
    """What is wrong with a record that is no JSON of the kind expected."""
    if text[:1] == b"\0" and len(text) >= 5:
        number = int.from_bytes(text[1:5], "big")
        return f"it is Avro or Protobuf (schema {number} of a registry): let the connector write JSON"
    return f"{type(error).__name__}: {error}" if not str(error) else str(error)
