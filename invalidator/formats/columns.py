"""Column values as Kafka Connect writes them, back into what the database's driver gives.

The key of a row must have the same text whether it was read from the database or from a topic, and JSON
has no dates, exact decimals or bytes: a day is a number there, 12.50 may be "BOI=". What a value is stands
in the schema that comes with a record, or else must be said: the column's SQL type.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from cachelib.errors import ConfigError
from cachelib.policy import one_of

Convert: TypeAlias = Callable[[Any], Any]
"""Raises `UNFIT` where the value is not of its type, or is one that Python has not (a date "infinity")."""
UNFIT = (ValueError, TypeError, ArithmeticError, KeyError, AttributeError)

_DAY_ZERO = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1)
_MIDNIGHT = datetime(1, 1, 1)
_SCALE_MAX = 20_000  # PostgreSQL's is 16383; a scale from nowhere must not make a number of gigabytes


def _decimal(unscaled: str, scale: int) -> Decimal:
    if not -_SCALE_MAX <= scale <= _SCALE_MAX:
        raise ValueError(f"a scale of {scale}")
    number = int.from_bytes(_bytes(unscaled), "big", signed=True)
    return Decimal(f"{number}E{-scale}")  # scaleb would round to 28 digits


def _variable_decimal(value: Mapping[str, Any]) -> Decimal:
    return _decimal(value["value"], value["scale"])


def _decimal_text(value: str | Decimal | int) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int):
        raise TypeError("a decimal number")
    number = Decimal(value)
    if number.is_finite() and abs(number.adjusted()) > 200_000:
        raise ValueError("more digits than any database keeps")
    return number


def _bytes(value: str) -> bytes:
    return b64decode(value, validate=True)


def _urlsafe_bytes(value: str) -> bytes:
    return urlsafe_b64decode(value)


def _day(value: int) -> date:
    return date.fromordinal(_DAY_ZERO + value)


def _iso_day(value: str) -> date:
    return date.fromisoformat(value.removesuffix("Z"))


def _zoned(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _since_epoch(times: int, per: int = 1) -> Convert:
    return lambda value: _EPOCH + timedelta(microseconds=value * times // per)


def _since_midnight(times: int, per: int = 1) -> Convert:
    def convert(value: int) -> time:
        found = _MIDNIGHT + timedelta(microseconds=value * times // per)
        if found.date() != _MIDNIGHT.date():
            raise ValueError("a time of day")  # 24:00, which Python has not
        return found.time()

    return convert


_BY_NAME: Mapping[str, Convert] = {
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "io.debezium.time.Date": _day,
    "io.debezium.time.IsoDate": _iso_day,
    "io.debezium.time.Timestamp": _since_epoch(1000),
    "io.debezium.time.MicroTimestamp": _since_epoch(1),
    "io.debezium.time.NanoTimestamp": _since_epoch(1, 1000),
    "io.debezium.time.ZonedTimestamp": _zoned,
    "io.debezium.time.Time": _since_midnight(1000),
    "io.debezium.time.MicroTime": _since_midnight(1),
    "io.debezium.time.NanoTime": _since_midnight(1, 1000),
    "org.apache.kafka.connect.data.Date": _day,
    "org.apache.kafka.connect.data.Time": _since_midnight(1000),
    "org.apache.kafka.connect.data.Timestamp": _since_epoch(1000),
}


def by_schema(kind: str, name: str | None, parameters: Mapping[str, Any] | None) -> Convert | None:
    """The conversion that a field of a Connect schema asks for; None where JSON has the value itself."""
    if name == "org.apache.kafka.connect.data.Decimal":
        scale = int((parameters or {})["scale"])
        return lambda value: _decimal(value, scale)
    return _BY_NAME.get(name or "") or (_bytes if kind == "bytes" else None)


@dataclass(frozen=True, slots=True)
class Encodings:
    """How the connector was told to write what JSON has not, for topics without schemas.

    The connector's `decimal.handling.mode`, `binary.handling.mode`, and whether `time.precision.mode` is isostring.
    """

    decimal: str = "precise"
    binary: str = "bytes"
    iso_dates: bool = False

    def __post_init__(self) -> None:
        one_of("decimal.handling.mode", self.decimal, ("precise", "string", "double"))
        one_of("binary.handling.mode", self.binary, ("bytes", "base64", "base64-url-safe", "hex"))


_SQL_TYPE = re.compile(
    r"\s*([a-z][a-z0-9 ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\))?(?: unsigned)?\s*", re.IGNORECASE
)
_BYTES = frozenset(("bytea", "binary", "varbinary", "blob", "tinyblob", "mediumblob", "longblob"))


def by_sql_type(sql_type: str, encodings: Encodings) -> Convert | None:
    """The conversion that a column of this type asks for, `numeric(12,2)` say; None where JSON has the value itself."""
    match = _SQL_TYPE.fullmatch(sql_type)
    if match is None:
        raise ConfigError(f"{sql_type!r} is not an SQL type: give what the database says, such as 'numeric(12,2)'")
    kind, precision, scale = match[1].lower(), match[2], match[3]
    if kind in ("numeric", "decimal"):
        if encodings.decimal != "precise":
            return _decimal_text
        if precision is None:
            return _variable_decimal
        return lambda value: _decimal(value, int(scale or 0))
    if kind == "date":
        return _iso_day if encodings.iso_dates else _day
    if kind in _BYTES:
        return {"hex": bytes.fromhex, "base64-url-safe": _urlsafe_bytes}.get(encodings.binary, _bytes)
    return None
