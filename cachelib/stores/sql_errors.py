"""Errors of SQLAlchemy and its drivers, said in one sentence as ours, with the cause chained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sqlalchemy import exc

from cachelib.errors import CommitUnknown, ConfigError, MissingExtra, StoreError

NOT_INSTALLED = "the store has no change log yet: call install(table) once, with a role that may create tables"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise `StoreError` or `ConfigError` for what SQLAlchemy raises while `doing` something."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise_as_ours(error, doing)


def raise_as_ours(error: exc.SQLAlchemyError, doing: str) -> NoReturn:
    """Raise our error for one of SQLAlchemy's."""
    said = _first_line(error)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        raise StoreError(f"the connection to the store broke while {doing}: {said}") from error
    if isinstance(error, exc.TimeoutError):
        raise StoreError(f"no connection to the store became free while {doing}: {said}") from error
    if isinstance(error, exc.OperationalError | exc.ProgrammingError) and _lacks_log(error, said):
        raise ConfigError(NOT_INSTALLED) from error
    raise StoreError(f"the store refused while {doing}: {said}") from error


def commit_may_have_happened(error: exc.SQLAlchemyError) -> bool:
    """A commit that failed: did the store refuse it (False), or did it not say?

    Where the connection is gone, the commit may have been made durable before it went. An
    I/O error is no better: the pages may or may not have reached the disk.
    """
    return isinstance(error, exc.DBAPIError) and (
        error.connection_invalidated or "disk I/O error" in _first_line(error)
    )


def hangs(error: exc.DBAPIError) -> bool:
    """The store says nothing any more, so it would be as silent if it were asked again."""
    return bool(getattr(error.orig, "store_hangs", False))


def raise_commit_failure(error: exc.SQLAlchemyError) -> NoReturn:
    """Raise our error for a commit that failed."""
    said = _first_line(error)
    if commit_may_have_happened(error):
        raise CommitUnknown(
            f"the connection to the store broke during a commit ({said}): "
            "look whether it took effect before you repeat it"
        ) from error
    raise StoreError(f"the store refused to commit, nothing was changed: {said}") from error


def missing(error: ImportError, url: str) -> MissingExtra:
    """The extra that brings the driver which a URL asks for."""
    extra = "postgresql" if url.startswith("postgresql") else "sql"
    return MissingExtra(
        f"a store at {url.split(':', 1)[0]}:… needs a driver: pip install 'leasecache[{extra}]' ({error})"
    )


def _lacks_log(error: exc.DBAPIError, said: str) -> bool:
    undefined = getattr(error.orig, "sqlstate", None) in ("42P01", "3F000") or "no such table" in said
    return undefined and "leasecache_" in said


def _first_line(error: exc.SQLAlchemyError) -> str:
    text = str(error.orig) if isinstance(error, exc.DBAPIError) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
