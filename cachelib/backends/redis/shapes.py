"""The two texts that nearly every call of a reader is, ready made: `GET name`, and a value that came in one piece.

A bulk string of so many bytes in all can begin in one way only. So whoever received as many knows
the beginning that they must have, if they are one value and nothing else: neither is anything searched for
nor is the value's length read. Anything else is hiredis's to read.
"""

from __future__ import annotations

NAMES_MAX, VALUES_MAX = 512, 4096
"""Longer names and longer replies are written and read in the usual way: there it does not show."""

GET_HEADS = tuple(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % length for length in range(NAMES_MAX))
"""By the length of the name: what stands before it."""


def _value_heads() -> tuple[bytes | tuple[()], ...]:
    heads = {}
    for length in range(VALUES_MAX):
        head = b"$%d\r\n" % length
        heads[len(head) + length + len(b"\r\n")] = head
    return tuple(heads.get(size, ()) for size in range(VALUES_MAX))


VALUE_HEADS = _value_heads()
"""By the length of a whole reply: what a value begins with; `()`, with which nothing begins, where none is so long."""
