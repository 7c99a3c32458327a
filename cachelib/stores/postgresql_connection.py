"""psycopg's connections, with a bound on the silence of the server.

A server that is stopped, or cut off behind a firewall that drops everything, says nothing: its kernel may go on
acknowledging, so neither TCP's timeouts nor `statement_timeout` (which the server itself keeps) end the wait. Here the
client does: psycopg resumes its protocol generator ten times a second, and the generator is one that looks at the
clock. What was asked then may have been done or not, so the connection is closed: a commit ends as `CommitUnknown`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg


class NoAnswer(psycopg.OperationalError):
    """The server said nothing for too long."""

    store_hangs = True
    """See `sql_errors.hangs`."""


class Bounded(Protocol):
    """What the two have in common."""

    answer_s: float | None
    pgconn: psycopg.pq.abc.PGconn


class BoundedConnection(psycopg.Connection[Any]):
    """`answer_s`: how long the server may be silent while it is asked something; None: for ever."""

    answer_s: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **named: Any) -> Any:
        """See `psycopg.Connection.wait`."""
        return super().wait(heard_from(self, gen), *arguments, **named)


class BoundedAsyncConnection(psycopg.AsyncConnection[Any]):
    """The same with `await`."""

    answer_s: float | None = None

    async def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **named: Any) -> Any:
        """See `psycopg.AsyncConnection.wait`."""
        return await super().wait(heard_from(self, gen), *arguments, **named)


def connecting(answer_s: float) -> Callable[[Any, Any, Any, dict[str, Any]], Any]:
    """A listener to SQLAlchemy's `do_connect`: connections of these kinds, with this bound."""

    def connect(dialect: Any, _record: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if dialect.is_async:
            named["async_creator_fn"] = connect_async
            return None
        made = BoundedConnection.connect(*arguments, **named)
        made.answer_s = answer_s
        return made

    async def connect_async(*arguments: Any, **named: Any) -> BoundedAsyncConnection:
        made = await BoundedAsyncConnection.connect(*arguments, **named)
        made.answer_s = answer_s
        return made

    return connect


def heard_from(connection: Bounded, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The generator, as long as the server says something from time to time."""
    if connection.answer_s is None:
        return (yield from gen)
    heard_at = time.monotonic()
    try:
        state = next(gen)
        while True:
            ready = yield state
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at >= connection.answer_s:
                connection.pgconn.finish()  # without waiting for anybody
                raise NoAnswer(
                    f"no answer within {connection.answer_s:g} s, so the connection was closed: the server hangs or is"
                    " cut off; where statements may take longer, raise SqlStore(answer_timeout=…)"
                )
            state = gen.send(ready)
    except StopIteration as done:
        return done.value


@contextmanager
def listening(connection: Any) -> Iterator[None]:
    """The server is to be silent for a while, until it has something to tell."""
    before, connection.answer_s = connection.answer_s, None
    try:
        yield
    finally:
        connection.answer_s = before
