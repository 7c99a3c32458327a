"""Where rows of MySQL and MariaDB arrive otherwise than their drivers give them, schema or not. Seen on real topics.

**Numbers without a sign.** By default (`bigint.unsigned.handling.mode=long`) 18446744073709551615 arrives as -1.
**UUIDs of MariaDB.** The binary log leaves out the zeros at the end of a value, and the connector (3.5.0) puts as many
in front of it: of 256 UUIDs one arrives as another one, 6f1ecafe-…-…678900 as 006f1eca-…-…6789.
**Truth values.** The database has none: BOOLEAN is TINYINT(1), and 1 to a driver. It arrives as `true` where the table
was made while the connector ran, and as 1 where the connector found it.

Of the first two nothing in the record tells what is meant. So such a change is told for each row that it may be about.
Of those that are not true nothing is cached, or little is voided for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any
from uuid import UUID

from cachelib.model import RowChange

CONNECTORS = frozenset(("mysql", "mariadb"))
"""Their names, as records have them."""
_BEYOND = 2**64
_WAYS_MAX = 256
_UUID_CHARS = 36


def without_truth(row: dict[str, Any]) -> None:
    """Truth values as numbers."""
    for name, value in row.items():
        if value is True or value is False:
            row[name] = int(value)


def all_possible(change: RowChange) -> tuple[RowChange, ...]:
    """The change, and behind it what it may be instead."""
    in_key = {name: ways for name, value in change.key.items() if len(ways := _ways(value)) > 1}
    several = [_rest(row, in_key) for row in (change.before, change.after) if row]
    most = max([len(ways) for row in several for ways in row.values()], default=1)
    if not in_key and most == 1:
        return (change,)
    if prod(map(len, in_key.values())) > _WAYS_MAX:
        return change, RowChange(change.table, "truncate", tx=change.tx, at_us=change.at_us)
    return tuple(_each(change, in_key, most))


def _each(change: RowChange, in_key: Mapping[str, Sequence[Any]], most: int) -> Iterator[RowChange]:
    for chosen in product(*in_key.values()):
        key = {**change.key, **dict(zip(in_key, chosen, strict=True))}
        for number in range(most):
            if key == change.key and number == 0:
                yield change
                continue
            yield replace(
                change,
                key=key,
                # Another row is only voided, never written through: what else is in doubt of it may be true.
                version=change.version if key == change.key else None,
                before=_image(change.before, change.key, key, number),
                after=_image(change.after, change.key, key, number),
            )


def _rest(row: Mapping[str, Any], in_key: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: _ways(value) for name, value in row.items() if name not in in_key}


def _image(
    row: Mapping[str, Any] | None, was: Mapping[str, Any], key: Mapping[str, Any], number: int
) -> dict[str, Any] | None:
    """An image with the key's values in place; of the other columns all in their `number`th way."""
    if row is None:
        return None
    found = {}
    for name, value in row.items():
        ways = _ways(value)
        found[name] = key[name] if was.get(name) == value and name in key else ways[min(number, len(ways) - 1)]
    return found


def _ways(value: Any) -> Sequence[Any]:
    """What a value may be; first of all what it is."""
    if value.__class__ is int:
        return (value, value + _BEYOND) if value < 0 else (value,)
    if value.__class__ is not str or len(value) != _UUID_CHARS or not value.startswith("00"):
        return (value,)
    try:
        raw = UUID(value).bytes
    except ValueError:
        return (value,)
    zeros = 16 - len(raw.lstrip(b"\0"))
    return [value, *(str(UUID(bytes=raw[lost:] + bytes(lost))) for lost in range(1, min(zeros, 15) + 1) if raw[-1])]
