"""psycopg's connections, with a bound on the silence of the server, and an ear for why it ends a session.

A server that is stopped, or cut off behind a firewall that drops everything, says nothing: its kernel may go on
acknowledging, so neither TCP's timeouts nor `statement_timeout` (which the server itself keeps) end the wait. Here the
client does: psycopg resumes its protocol generator ten times a second, and the generator is one that looks at the
clock. What was asked then may have been done or not, so the connection is closed: a commit ends as `CommitUnknown`.

A server that ends a session says why, at once. Where nothing is asked just then (`notifies`) that is nobody's answer:
libpq hands it on as a notice, and whatever is asked next finds a closed connection and no reason. So it is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
from psycopg.errors import Diagnostic


class NoAnswer(psycopg.OperationalError):
    """The server said nothing for too long."""

    store_hangs = True
    """See `sql_errors.hangs`."""


class SessionEnded(psycopg.OperationalError):
    """The server has ended the session, and said why before anything was asked."""


class LastWords:
    """Why the server ends the session, if it has said so by itself."""

    def __init__(self) -> None:
        self._said = ""

    def hear(self, told: Diagnostic) -> None:
        """A notice. A server that crashes, or stops at once, ends all sessions with no more than a warning (57P0…).

        What is wanted of it is taken now: libpq frees it.
        """
        if told.severity_nonlocalized in ("FATAL", "PANIC") or (told.sqlstate or "").startswith("57P"):
            self._said = told.message_primary or ""

    def instead_of(self, error: psycopg.OperationalError) -> psycopg.OperationalError:
        """What is to be raised in place of an error that says no more than that the connection is gone."""
        if not self._said or error.sqlstate is not None or isinstance(error, NoAnswer):
            return error
        return SessionEnded(f"{self._said} ({str(error).splitlines()[0]})")


class Bounded(Protocol):
    """What the two have in common."""

    answer_s: float | None
    last_words: LastWords
    pgconn: psycopg.pq.abc.PGconn


class BoundedConnection(psycopg.Connection[Any]):
    """`answer_s`: how long the server may be silent while it is asked something; None: for ever."""

    answer_s: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.last_words = LastWords()
        self.add_notice_handler(self.last_words.hear)

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """See `psycopg.Connection.cursor`."""
        with telling_why(self):
            return super().cursor(*arguments, **named)

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **named: Any) -> Any:
        """See `psycopg.Connection.wait`."""
        with telling_why(self):
            return super().wait(heard_from(self, gen), *arguments, **named)


class BoundedAsyncConnection(psycopg.AsyncConnection[Any]):
    """The same with `await`."""

    answer_s: float | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.last_words = LastWords()
        self.add_notice_handler(self.last_words.hear)

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """See `psycopg.AsyncConnection.cursor`."""
        with telling_why(self):
            return super().cursor(*arguments, **named)

    async def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **named: Any) -> Any:
        """See `psycopg.AsyncConnection.wait`."""
        with telling_why(self):
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
def telling_why(connection: Bounded) -> Iterator[None]:
    """An error of a connection that is gone says why it went, where the server had told."""
    try:
        yield
    except psycopg.OperationalError as error:
        if connection.pgconn.status == psycopg.pq.ConnStatus.OK:
            raise  # of what was asked, or a time that is up
        better = connection.last_words.instead_of(error)
        if better is error:
            raise
        raise better from error


@contextmanager
def listening(connection: Any) -> Iterator[None]:
    """The server is to be silent for a while, until it has something to tell.

    If it ends the session meanwhile the next statement says so, and SQLAlchemy, which does not see this wait, knows.
    """
    before, connection.answer_s = connection.answer_s, None
    try:
        yield
    except psycopg.OperationalError:
        if connection.pgconn.status == psycopg.pq.ConnStatus.OK:
            raise
    finally:
        connection.answer_s = before
