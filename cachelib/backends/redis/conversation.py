"""A talk over one connection of threads: alone, and beside others."""

from __future__ import annotations

from typing import TypeVar

from hiredis import pack_command

from cachelib.backends.base import ConnectionLost
from cachelib.backends.redis.link import Link
from cachelib.backends.redis.talks import Talk, spoils

T = TypeVar("T")


def converse(link: Link, talk: Talk[T]) -> tuple[T, bool]:
    """The talk's result, and whether the connection may be used again."""
    replies: list[object] | None = None
    sound = True
    while True:
        try:
            commands = talk.send(replies)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            return end.value, sound
        if replies is not None and not link.is_connected:
            raise ConnectionLost("the connection broke between two steps")  # I11: and a new one would not do
        request = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
        replies = link.many(request, len(commands))
        sound = sound and not any(map(spoils, replies))


async def conversing(link: Link, talk: Talk[T]) -> tuple[T, bool]:
    """`converse`, suspended where it waits for the server."""
    replies: list[object] | None = None
    sound = True
    while True:
        try:
            commands = talk.send(replies)  # type: ignore[arg-type]  # as above
        except StopIteration as end:
            return end.value, sound
        if replies is not None and not link.is_connected:
            raise ConnectionLost("the connection broke between two steps")
        request = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
        replies = await link.answered(request, len(commands))
        sound = sound and not any(map(spoils, replies))
