"""What a program declares of the things it caches: key, loader, codec, lives, level.

An entity is either of **rows** (`table=`: the key is computed from one row's primary key, its
versions compare), of **many rows** (`depends_on=`: a list, a count, a join; it lives by leases and
revoke alone), or of **neither** (a function's result: leases and TTL).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from cachelib.codecs import Packer
from cachelib.errors import ConfigError
from cachelib.keys import Key, Template
from cachelib.policy import (
    Bounded,
    Duration,
    Eventual,
    LeasePolicy,
    Level,
    Lives,
    OnFailure,
    Pace,
    Strong,
    Ttl,
    WriteMode,
    duration_ms,
    one_of,
    refuse_unknown,
    share,
)

Columns: TypeAlias = str | tuple[str, ...]
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class TableLoader:
    """Load rows of a table by its key columns; the store knows how."""

    table: str
    key: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class FunctionLoader:
    """Call a function with the key's fields; no store is involved."""

    call: Callable[..., Any]


_SETTINGS = frozenset(
    (
        *("name", "load", "save", "remove", "table", "key", "version", "depends_on"),
        *("ttl", "negative_ttl", "stale_ttl", "tombstone_ttl", "jitter"),
        *("codec", "schema", "compress_over", "consistency", "lease", "on_failure", "write", "refresh"),
    )
)


class Entity:
    """A kind of thing that is cached.

    Args:
        template: the key template, such as `"order:{id:int}"`; see `cachelib.keys`.
        load: `(tx, keys) -> mapping of key to Row or value`; every missing key at once, a key
            left out is an absent row. `async def` for `AsyncCache`.
        save, remove: `(tx, key, value)` and `(tx, key)`; they make `put` and `delete` possible.
        table: whose rows these are. `key`: its primary key columns, in the order of the
            template's fields (default: the fields' names). `version`: the column that orders a
            row's states; None for a store without versions.
        depends_on: for keys of many rows: table to the column (or columns) that give the key.
        ttl, negative_ttl, stale_ttl: life of a value, of absence, and of content that is no
            longer fresh but may be shown while another loads or the store fails.
        codec: "msgpack", "json", "bytes", a msgspec/dataclass/pydantic type, or a `Codec`.
        schema: 0 … 255, see `cachelib.codecs`. `compress_over`: bytes, None for never.
        consistency: the default level of its reads, and whether its writers must be confirmed.
        lease, jitter, on_failure: policies. `write`: what a committed write does: "through" puts
            the new value where the key is cached, "populate" also where it is not, "invalidate"
            voids it.
        refresh: what the key's value is after a change, told from the row's columns as the change log has them:
            `(columns) -> value`, the very value that `load` would give. With it the invalidator writes changes
            through to keys that are cached, instead of voiding them. A column that it asks for and that the log does
            not carry (`KeyError`) makes that change void the key as without it.
        tombstone_ttl: leave a floor for uncached keys so long; for stores read through replicas.

    Raises:
        ConfigError: a setting is unknown, wrong, or contradicts another.
    """

    def __init__(self, template: str, **settings: Any) -> None:
        refuse_unknown(f"entity {template!r}", set(settings) - _SETTINGS, _SETTINGS)
        self.template = Template(template)
        self.name: str = settings.get("name") or self.template.name
        self.load: Callable[..., Any] | TableLoader | FunctionLoader | None = settings.get("load")
        self.save: Callable[..., Any] | None = settings.get("save")
        self.remove: Callable[..., Any] | None = settings.get("remove")
        self._of_what(settings)
        self._how_long(settings)
        self._how(settings)

    def _of_what(self, settings: Mapping[str, Any]) -> None:
        self.table: str | None = settings.get("table")
        depends_on = settings.get("depends_on") or {}
        if not isinstance(depends_on, Mapping):
            raise ConfigError(
                f"entity {self.name!r}: depends_on is {depends_on!r}: give each table and the column that"
                " names the key, such as {'orders': 'customer_id'}"
            )
        self.depends_on = {table: _columns(columns) for table, columns in depends_on.items()}
        self.key: tuple[str, ...] = _columns(settings.get("key") or self.template.fields)
        self.version: str | None = settings.get("version", "row_version") if self.table else None
        if self.table and self.depends_on:
            raise ConfigError(
                f"entity {self.name!r}: give table= (rows of one) or depends_on= (keys of many), not both"
            )
        for table, columns in [(self.table, self.key), *self.depends_on.items()]:
            if len(columns) != len(self.template.fields):
                raise ConfigError(
                    f"entity {self.name!r}: table {table!r} gives {len(columns)} columns {columns}"
                    f" for the {len(self.template.fields)} fields of {self.template.text!r}"
                )

    def _how_long(self, settings: Mapping[str, Any]) -> None:
        lease = self._policy(settings, "lease", LeasePolicy)
        jitter = self._policy(settings, "jitter", Ttl)
        self.pace = Pace(
            duration_ms("LeasePolicy.hold", lease.hold),
            duration_ms("LeasePolicy.wait", lease.wait),
            duration_ms("LeasePolicy.wait_max", lease.wait_max),
        )
        self.lives = Lives(
            ttl_ms=self._ms(settings, "ttl", "1h", 1000),
            negative_ttl_ms=self._ms(settings, "negative_ttl", "30s", 1000),
            stale_ttl_ms=self._ms(settings, "stale_ttl", "5m", 0),
            jitter=share("Ttl.jitter", jitter.jitter),
            early=share("Ttl.early", jitter.early),
        )
        self.tombstone_ttl_ms = self._ms(settings, "tombstone_ttl", 0, 0)

    def _policy(self, settings: Mapping[str, Any], name: str, kind: type[P]) -> P:
        policy = settings.get(name)
        if policy is not None and not isinstance(policy, kind):
            raise ConfigError(f"entity {self.name!r}: {name} is {policy!r}: give {name}={kind.__name__}(…)")
        return kind() if policy is None else policy

    def _ms(self, settings: Mapping[str, Any], name: str, default: Duration, least_ms: int) -> int:
        return duration_ms(f"{name} of entity {self.name!r}", settings.get(name, default), least_ms=least_ms)

    def _how(self, settings: Mapping[str, Any]) -> None:
        self.packer = Packer(
            settings.get("codec", "msgpack"), settings.get("schema", 0), settings.get("compress_over", 16_384)
        )
        self.consistency: Level = settings.get("consistency") or Eventual()
        if not isinstance(self.consistency, Eventual | Bounded | Strong):
            raise ConfigError(
                f"entity {self.name!r}: consistency is {self.consistency!r}, not Eventual(), Bounded('2s') or Strong()"
            )
        self.on_failure = self._policy(settings, "on_failure", OnFailure)
        self.write: WriteMode = settings.get("write", "through")
        one_of(f"write of entity {self.name!r}", self.write, ("through", "populate", "invalidate"))
        self._how_refreshed(settings.get("refresh"))
        if self.strong and not (self.table or self.depends_on):
            raise ConfigError(
                f"entity {self.name!r}: Strong() needs to know whose writes change it: give table= or depends_on="
            )

    def _how_refreshed(self, refresh: Any) -> None:
        self.refresh: Callable[[Mapping[str, Any]], Any] | None = refresh
        if refresh is None:
            return
        if not callable(refresh):
            raise ConfigError(
                f"entity {self.name!r}: refresh is {refresh!r}: give a function that makes the value of a row's columns"
            )
        if not self.versioned:
            raise ConfigError(
                f"entity {self.name!r}: refresh= puts one row over an older one, so it needs table= and version="
            )
        if self.tombstone_ttl_ms:
            # A put leaves nothing in an empty slot, where the tombstone is what lagging replicas need.
            raise ConfigError(f"entity {self.name!r}: give refresh= or tombstone_ttl=, not both")

    @classmethod
    def from_table(cls, table: str, *, key: Columns = "id", version: str = "row_version", **settings: Any) -> Entity:
        """An entity of a table's whole rows, as dicts, with a batch loader: key `"table:{id}"`."""
        columns = _columns(key)
        template = settings.pop("template", None) or f"{table}:" + ":".join(f"{{{column}}}" for column in columns)
        load = settings.pop("load", None) or TableLoader(table, columns, version)
        return cls(template, table=table, key=columns, version=version, load=load, **settings)

    @property
    def tables(self) -> tuple[str, ...]:
        """Whose changes change its keys."""
        return (self.table,) if self.table else tuple(self.depends_on)

    @property
    def strong(self) -> bool:
        """Its reads may be strong, so its writers must be confirmed."""
        return isinstance(self.consistency, Strong)

    @property
    def confirm(self) -> bool:
        """A write whose cache step was not answered raises `Unconfirmed` (I7)."""
        return self.strong or self.on_failure.write == "confirm"

    @property
    def versioned(self) -> bool:
        """Its keys are row keys whose versions compare."""
        return self.table is not None and self.version is not None

    def text(self, key: Key) -> bytes:
        """The key's text. Raises `BadKey`."""
        return self.template.render(key)

    def __repr__(self) -> str:
        return f"Entity({self.template.text!r})"


def _columns(columns: Any) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)
