"""A writer has to know every entity that is read as strong and made of its rows, or nobody tells its readers."""

from __future__ import annotations

from cachelib.core import Core
from cachelib.errors import ConfigError


async def refuse_strangers(core: Core, tables: frozenset[str]) -> None:
    """Raise `ConfigError` where rows of these tables are read as strong by an entity unknown here."""
    if not core.store or not tables:
        return
    known = {entity.name for entity in list(core.known)}
    for name, concerned in (await core.layout.leased()).layout.strong.items():
        if name not in known and tables & set(concerned):
            raise ConfigError(
                f"this transaction changed {', '.join(sorted(tables & set(concerned)))}, which is read as Strong()"
                f" by entity {name!r}, and this cache does not know that entity: its readers could be left with"
                " old values. Rolled back; give Cache(entities=[…]) every entity whose rows it writes"
            )
