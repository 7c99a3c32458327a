"""`cachelib layout`: show where keys live, and change which nodes have them, while everything goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cachelib.backends import from_url
from cachelib.drivers import run_now
from cachelib.errors import ConfigError
from cachelib.layout import Layout, Placing, encode_layout, with_nodes
from cachelib.places import each_url, node_name
from cachelib.slots import SLOTS
from cachelib.stores import SqlStore
from cachelib.threads import DirectStore, ThreadWorld
from cachelib.view import LayoutView

_store = click.option("--store", "store_url", required=True, envvar="CACHELIB_STORE", help="URL of the SQL store.")
_wait = click.option("--wait/--no-wait", default=True, help="Wait until every client has taken it up. [wait]")


@contextmanager
def view_of(store_url: str) -> Iterator[LayoutView]:
    """The layout in a store."""
    with SqlStore(store_url) as store:
        yield LayoutView(DirectStore(store), ThreadWorld(), lambda _: None)


@click.group(invoke_without_command=True)
@click.option("--store", "store_url", default=None, help="URL of the SQL store, where no command follows.")
@click.pass_context
def layout(context: click.Context, store_url: str | None) -> None:
    """Where keys live: show it, add nodes, take nodes away. Reads and writes go on meanwhile."""
    if context.invoked_subcommand is None:
        show.main(["--store", store_url] if store_url else [], "cachelib layout show", standalone_mode=False)


@layout.command()
@_store
@click.option("--json", "as_json", is_flag=True, help="The whole document.")
def show(store_url: str, as_json: bool) -> None:
    """Show the nodes with their shares of the keys, what is about to change, epochs and modes."""
    with view_of(store_url) as view:
        found = run_now(view.read(required=True)).layout
    if as_json:
        click.echo(json.dumps(json.loads(encode_layout(found)), indent=1))
        return
    for line in described(found):
        click.echo(line)


@layout.command()
@_store
@_wait
@click.option("--unchecked", is_flag=True, help="Do not ask the nodes first whether they answer.")
@click.argument("urls", nargs=-1, required=True)
def add(store_url: str, wait: bool, unchecked: bool, urls: tuple[str, ...]) -> None:
    """Add nodes to the pool, by their URLs. Each takes its share of the keys from all others.

    Clients reach a node that they were not given with the user, password and options of one that they were. Where the
    layout names no nodes yet, give all of them: what one node held is then left behind.
    """
    given = {node_name(url): url for url in each_url(urls)}
    if not unchecked:
        for url in given.values():
            _ask(url)

    def grown(now: Layout) -> Layout:
        if not now.goal.nodes and len(given) == 1:
            raise ConfigError(
                "the layout names no nodes yet: give all nodes of the pool, the one that is there among them"
            )
        return with_nodes(now, tuple(dict.fromkeys((*now.goal.nodes, *given))))

    _changed(store_url, grown, wait=wait)


@layout.command()
@_store
@_wait
@click.argument("nodes", nargs=-1, required=True)
def remove(store_url: str, wait: bool, nodes: tuple[str, ...]) -> None:
    """Take nodes out of the pool, by URL or name; dead ones, too. The others take over their keys, empty."""
    leaving = {node_name(node) for node in each_url(nodes)}

    def shrunk(now: Layout) -> Layout:
        strangers = sorted(leaving - set(now.goal.nodes))
        if strangers:
            raise ConfigError(f"{strangers[0]!r} is not in the pool, which is {', '.join(now.goal.nodes) or 'empty'}")
        left = [node for node in now.goal.nodes if node not in leaving]
        if not left:
            raise ConfigError("a pool needs a node: add another one before you take away the last")
        return with_nodes(now, left)

    _changed(store_url, shrunk, wait=wait)


def described(layout: Layout) -> Iterator[str]:
    """The layout in lines for a person."""
    yield f"layout {layout.number}" + ("" if layout.next is None else ", and a change that is about to become current")
    yield from _nodes(layout.now)
    if layout.next is not None:
        yield "about to become:"
        yield from _nodes(layout.next)
    for entity, epoch in sorted(layout.now.epochs.items()):
        yield f"  epoch {epoch}  {entity}"
    for entity, mode in sorted(layout.now.modes.items()):
        yield f"  mode {mode.value}  {entity}"
    for entity, tables in sorted(layout.strong.items()):
        yield f"  read as strong  {entity} ({', '.join(tables)})"


def _nodes(placing: Placing) -> Iterator[str]:
    if placing.slots is None:
        yield "  one node, the one that each client was given"
        return
    for node in placing.nodes:
        share = len(placing.slots.of(node))
        yield f"  {share / SLOTS:6.1%}  {share:5d} slots  {node}"


def _ask(url: str) -> None:
    """Raises `CacheUnavailable` where the node does not answer."""
    node = from_url(url)
    try:
        node.instance()
    finally:
        node.close()


def _changed(store_url: str, change: Callable[[Layout], Layout], *, wait: bool) -> None:
    with view_of(store_url) as view:
        before = run_now(view.read(required=True)).layout
        published = run_now(view.publish(change))
        if published.number == before.number:
            click.echo("nothing to change")
            return
        for line in described(published):
            click.echo(line)
        if not wait:
            click.echo("published; clients and the invalidator make it current in a few seconds")
            return
        click.echo("published; waiting until every client has taken it up …")
        run_now(view.settle(published))
        click.echo("current")
