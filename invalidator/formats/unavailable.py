"""Debezium's mark for a value that did not change and that the log therefore does not have (PostgreSQL: TOAST)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

UNAVAILABLE = "__debezium_unavailable_value"


class Unavailable:
    """The connector's `unavailable.value.placeholder`, in all its spellings."""

    def __init__(self, placeholder: str = UNAVAILABLE) -> None:
        self._text = placeholder
        self._bytes = b64encode(placeholder.encode()).decode()
        self._hex = placeholder.encode().hex()
        self._marks = tuple(mark.encode() for mark in (placeholder, self._bytes, self._hex))

    def may_be_in(self, record: bytes) -> bool:
        """Whether it is worth looking: the record's bytes hold the mark somewhere."""
        text, in_base64, in_hex = self._marks
        return text in record or in_base64 in record or in_hex in record

    def drop(self, row: dict[str, Any]) -> None:
        """Take the columns out that have it: they are unknown."""
        for column in [column for column, given in row.items() if self._is(given)]:
            del row[column]

    def _is(self, given: Any) -> bool:
        if isinstance(given, dict):  # hstore, a decimal with its scale
            return any(self._is(part) for part in (*given, *given.values()))
        if isinstance(given, list):
            return any(self._is(part) for part in given)
        return isinstance(given, str) and given in (self._text, self._bytes, self._hex)
