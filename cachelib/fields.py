"""The fields of a key template: how a value of each type is written, wherever it comes from.

Python, a change-log row and a Kafka message have different words for the same key, and all must give one text. A field
without a type takes whole numbers, text, UUIDs, dates and decimals and writes them alike ("7" and 7 are one key).

Each function raises `ValueError` (or `ArithmeticError`), with the words for what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

_DIGITS_MAX = 4000
"""Numbers end here: to write 1E+999999999 in full would take the process with it."""


def _int(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))  # a member of an enum as its value
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)", value) and value != "-0":
        return value
    if isinstance(value, Decimal) and _written_out(value) and value == value.to_integral_value():
        return str(int(value))
    raise ValueError("a whole number")


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("text")


def _uuid(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return str(UUID(value))
    raise ValueError("a UUID")


def _date(value: Any) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return date.fromisoformat(value).isoformat()
    raise ValueError("a date")


def _decimal(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("a decimal number")
    number = Decimal(value)
    if not _written_out(number):
        raise ValueError("a finite decimal number of a usual size")
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _written_out(number: Decimal) -> bool:
    """It is finite and can be written without an exponent."""
    return number.is_finite() and abs(number.adjusted()) + len(number.as_tuple().digits) <= _DIGITS_MAX


def _bytes(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):  # a change log's notation: \x6869 or 6869
        return bytes.fromhex(value.removeprefix("\\x")).hex()
    raise ValueError("bytes")


def _any(value: Any) -> str:
    match value:
        case bool():
            pass
        case int():
            return _int(value)
        case str():
            return value
        case UUID():
            return _uuid(value)
        case datetime():
            pass
        case date():
            return _date(value)
        case Decimal():
            return _decimal(value)
    raise ValueError("a whole number, text, UUID, date or decimal; name another type in the template")


TYPES: Mapping[str, Callable[[Any], str]] = {
    "any": _any,
    "int": _int,
    "str": _str,
    "uuid": _uuid,
    "date": _date,
    "decimal": _decimal,
    "bytes": _bytes,
}
