"""Stores: the authoritative database, as the cache asks for it (`base`), and the ones we ship."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cachelib.errors import MissingExtra

if TYPE_CHECKING:
    from cachelib.stores.installer import Installed, TableStatus
    from cachelib.stores.sql import SqlStore
    from cachelib.stores.sql_async import AsyncSqlStore

__all__ = ["SqlStore", "AsyncSqlStore", "Installed", "TableStatus"]

_MODULES = {
    "AsyncSqlStore": "cachelib.stores.sql_async",
    "Installed": "cachelib.stores.installer",
    "SqlStore": "cachelib.stores.sql",
    "TableStatus": "cachelib.stores.installer",
}


def __getattr__(name: str) -> Any:
    """Import SQLAlchemy only where a store of it is asked for: it is an extra."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise MissingExtra(f"{name} needs SQLAlchemy: pip install 'leasecache[sql]'") from error
