"""The command line for people who install and operate: `cachelib --help`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import click

from cachelib.cli_layout import layout, view_of
from cachelib.client import Cache
from cachelib.doctor import examine
from cachelib.drivers import run_now
from cachelib.entity import Entity
from cachelib.errors import ConfigError
from cachelib.layout import with_mode, with_new_epochs
from cachelib.policy import Mode
from cachelib.stores import SqlStore
from cachelib.stores.names import nearest

_store = click.option("--store", "store_url", required=True, envvar="CACHELIB_STORE", help="URL of the SQL store.")
_cache = click.option("--cache", "cache_url", required=True, envvar="CACHELIB_CACHE", help="URL of the cache node.")
_entities = click.option(
    "--entities",
    required=True,
    envvar="CACHELIB_ENTITIES",
    help="Where they are declared: package.module:name of a list; several with spaces between them.",
)
_known = click.option(
    "--entities",
    default="",
    envvar="CACHELIB_ENTITIES",
    help="Where they are declared; with it a name that is none of them is pointed out.",
)
_namespace = click.option(
    "--namespace", default="lc", show_default=True, envvar="CACHELIB_NAMESPACE", help="The application's namespace."
)


@click.group()
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def commands(debug: bool) -> None:
    """Install the change log on tables, look into a cache, and steer it."""


@commands.command()
@_store
@click.argument("tables", nargs=-1, required=True)
def install(store_url: str, tables: tuple[str, ...]) -> None:
    """Install versions, triggers and the change log: TABLE:KEY[+KEY…][,watch=COLUMN]… for each table.

    Safe to run again, and on a live table: it says how long writers were locked out.
    """
    wanted = [table_spec(text) for text in tables]  # all are read before any is touched
    with SqlStore(store_url) as store:
        for table, key, watch in wanted:
            done = store.install(table, key=key, watch=watch)
            what = f"installed, {done.locked_ms:.1f} ms under lock" if done.changed else "was installed already"
            click.echo(f"{table}: {what}")


@commands.command()
@_store
@click.argument("tables", nargs=-1, required=True)
def uninstall(store_url: str, tables: tuple[str, ...]) -> None:
    """Take the version column and the triggers off tables; what the log has stays until it is purged."""
    with SqlStore(store_url) as store:
        for table in tables:
            click.echo(f"{table}: {'taken off' if store.uninstall(table).changed else 'was not installed'}")


@commands.command()
@_store
@click.argument("tables", nargs=-1, required=True)
def status(store_url: str, tables: tuple[str, ...]) -> None:
    """How tables and the change log stand."""
    with SqlStore(store_url) as store:
        for table in tables:
            found = store.status(table)
            click.echo("\n".join(f"{name}: {getattr(found, name)}" for name in found.__dataclass_fields__) + "\n")


@commands.command()
@_store
def purge(store_url: str) -> None:
    """Drop change-log rows that every consumer has read, and those over the retention."""
    with SqlStore(store_url) as store:
        click.echo(f"{store.purge()} rows dropped")


@commands.command()
@_cache
@_store
@_entities
@_namespace
@click.argument("entity")
@click.argument("key", nargs=-1, required=True)
def explain(cache_url: str, store_url: str, entities: str, namespace: str, entity: str, key: tuple[str, ...]) -> None:
    """What the item of ENTITY KEY… is, and why the next read would hit, miss or wait."""
    declared = entities_of(entities)
    with SqlStore(store_url) as store, Cache(cache_url, store=store, entities=declared, namespace=namespace) as cache:
        chosen = _named(declared, entity)
        click.echo(f"level: {type(chosen.consistency).__name__}")
        click.echo(cache.explain(chosen, key[0] if len(key) == 1 else key))


@commands.command()
@_store
@_known
@click.option("--all", "everything", is_flag=True, help="Void every key of every entity.")
@click.argument("names", nargs=-1)
def clear(store_url: str, entities: str, everything: bool, names: tuple[str, ...]) -> None:
    """New epochs for entities, by name: every client drops all their keys. Takes four seconds."""
    if everything == bool(names):
        raise ConfigError("name the entities to clear, or give --all")
    _point_out(names, entities)
    with view_of(store_url) as view:
        published = run_now(view.publish(lambda layout: with_new_epochs(layout, None if everything else names)))
        click.echo("published; waiting until every client has taken it up …")
        run_now(view.settle(published))
        click.echo("current")


@commands.command()
@_store
@_known
@click.argument("name")
@click.argument("mode", type=click.Choice([mode.value for mode in Mode]))
def mode(store_url: str, entities: str, name: str, mode: str) -> None:
    """Set what reads of entity NAME ("*": of all) may do with the cache: on, no_fill or bypass."""
    if name != "*":
        _point_out((name,), entities)
    with view_of(store_url) as view:
        run_now(view.publish(lambda layout: with_mode(layout, name, Mode(mode))))
    click.echo(f"{name}: {mode}, in every process within a second")


commands.add_command(layout)


@commands.command()
@click.option("--cache", "cache_url", default=None, help="URL of a cache node to try.")
@click.option("--store", "store_url", default=None, help="URL of a store to try.")
@click.pass_context
def doctor(context: click.Context, cache_url: str | None, store_url: str | None) -> None:
    """Look for what is usually wrong: the import-name clash, missing extras, servers that do not answer."""
    bad = False
    for finding in examine(cache_url, store_url):
        mark = {True: "ok  ", False: "BAD ", None: "–   "}[finding.ok]
        bad |= finding.ok is False
        click.echo(f"{mark}{finding.what}: {finding.say}")
    context.exit(1 if bad else 0)


def table_spec(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`orders:shop+id,watch=customer_id` as table, key columns, watched columns. Raises `ConfigError`."""
    head, *options = text.split(",")
    table, _, key = head.rpartition(":")
    watch = []
    for option in options:
        name, _, value = option.partition("=")
        if name != "watch" or not value:
            raise ConfigError(f"{text!r}: {option!r} is no option of a table: give watch=COLUMN")
        watch.append(value)
    if not table or not key:
        raise ConfigError(f"{text!r}: give TABLE:KEY, or TABLE:KEY+KEY for a composite key")
    return table, tuple(key.split("+")), tuple(watch)


def entities_of(places: str) -> list[Entity]:
    """The entities declared at each `package.module:name`, with spaces between them. Raises `ConfigError`."""
    return [entity for place in places.split() for entity in _declared_at(place)]


def _declared_at(place: str) -> list[Entity]:
    name, _, attribute = place.partition(":")
    try:
        module = importlib.import_module(name)
        found: Any = getattr(module, attribute) if attribute else getattr(module, "entities", vars(module))
    except (ImportError, AttributeError) as cause:
        raise ConfigError(f"entities {place!r} cannot be imported: {cause}") from cause
    if isinstance(found, Entity):
        return [found]
    declared = list(found.values() if isinstance(found, Mapping) else found) if isinstance(found, Iterable) else []
    if found is vars(module):  # a module by itself: whatever entities it has, as the invalidator takes it
        declared = list(dict.fromkeys(one for one in declared if isinstance(one, Entity)))
    if not declared or not all(isinstance(one, Entity) for one in declared):
        raise ConfigError(f"{place!r} is not an Entity, nor a list or module of them")
    return declared


def _named(declared: list[Entity], name: str) -> Entity:
    for entity in declared:
        if entity.name == name:
            return entity
    raise ConfigError(f"there is no entity {name!r}, only {', '.join(entity.name for entity in declared)}")


def _point_out(names: tuple[str, ...], places: str) -> None:
    """Somebody under pressure has mistyped a name: nothing would refuse it, and nothing would change.

    Said and not refused: entities may be declared elsewhere as well, such as by rules of the invalidator.
    """
    known = [entity.name for entity in entities_of(places)]
    for name in names if known else ():
        if name not in known:
            click.echo(f"note: {places} declares no entity {name!r}: {nearest(name, known)}", err=True)
