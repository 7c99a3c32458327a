"""Talks over a client of redis-py's own, command by command: the simple path, for fakeredis.

Each command goes over whatever connection the client chooses, so the notes of `apply` are not
bound to the connection of their batch (I11), and nobody can tell when it leads to a server that came back with
old data, so strong reads ask the store: good for tests, not for an invalidator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from cachelib.backends.redis.talks import Talk, plain
from cachelib.errors import CacheUnavailable
from cachelib.model import Name
from cachelib.proof import Seen

T = TypeVar("T")


class ClientTransport:
    """Carries talks through a `redis.Redis`, or what looks like one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.place = repr(client)

    def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`."""
        try:
            return plain(self._client.execute_command("GET", name))
        except RedisError as error:
            raise CacheUnavailable(f"redis at {self.place}: {error}") from error

    def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end."""
        replies: list[object] | None = None
        try:
            while True:
                replies = [self._reply(command) for command in talk.send(replies)]  # type: ignore[arg-type]
        except StopIteration as end:
            value: T = end.value
            return value
        except RedisError as error:
            raise CacheUnavailable(f"redis at {self.place}: {error}") from error

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Backend.watch`: the client does not tell when it connects anew, so nothing can be known."""
        seen("")

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _reply(self, command: tuple[bytes, ...]) -> object:
        try:
            return self._client.execute_command(*_named(command))
        except ResponseError as refused:
            return refused


class AsyncClientTransport:
    """Carries talks through a `redis.asyncio.Redis`, or what looks like one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.place = repr(client)

    async def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`."""
        try:
            return plain(await self._client.execute_command("GET", name))
        except RedisError as error:
            raise CacheUnavailable(f"redis at {self.place}: {error}") from error

    async def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end."""
        replies: list[object] | None = None
        try:
            while True:
                commands = talk.send(replies)  # type: ignore[arg-type]
                replies = [await self._reply(command) for command in commands]
        except StopIteration as end:
            value: T = end.value
            return value
        except RedisError as error:
            raise CacheUnavailable(f"redis at {self.place}: {error}") from error

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `ClientTransport.watch`."""
        seen("")

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def _reply(self, command: tuple[bytes, ...]) -> object:
        try:
            return await self._client.execute_command(*_named(command))
        except ResponseError as refused:
            return refused


def _named(command: tuple[bytes, ...]) -> tuple[Any, ...]:
    """redis-py looks at a command's name, a string, to choose how it reads the reply."""
    if command[0] == b"SCRIPT":
        return ("SCRIPT LOAD", *command[2:])
    return (command[0].decode(), *command[1:])
