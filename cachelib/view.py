"""A client's view of the layout: read from the store once a second at most, held under a lease.

A strong read or a writer needs a view whose lease has not lapsed (I13). An eventual read goes on
by the old one while the store cannot be asked: then nobody can change the layout either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import random
from typing import Any

from cachelib.entity import Entity
from cachelib.errors import ConfigError, LayoutConflict, StoreError
from cachelib.layout import (
    LEASE_MS,
    REFRESH_MS,
    Layout,
    Placing,
    completed,
    decode_layout,
    encode_layout,
    first_layout,
    with_nodes,
)
from cachelib.slots import fixed_slots
from cachelib.stores.base import AsyncStore
from cachelib.world import World

CHANGE_TRIES = 20
"""Publishing a change is tried so often against others who publish at the same time."""
PATIENCE_S = 0.5
"""A reader that has a view waits so long for a newer one; a writer or a strong reader as long as it takes."""
LEFT_S = 2.0
"""A change that waits so much longer than it must was left by its publisher: whoever sees that makes it current."""
SETTLE_TRIES = 10
"""A publisher waits for at most so many changes published on top of its own."""


class View:
    """The layout as it was read at one moment. Times are of the monotonic clock, seconds."""

    __slots__ = ("document", "lanes", "layout", "lease_until", "refresh_at", "unread")

    def __init__(self, layout: Layout, document: bytes | None, began: float) -> None:
        self.layout = layout
        self.document = document
        self.refresh_at = began + REFRESH_MS / 1000
        self.lease_until = began + LEASE_MS / 1000
        self.unread = False
        """The store could not be asked when this view was made."""
        self.lanes: dict[Entity, Any] = {}
        """What the hit path of each entity needs; kept here because it is true as long as the layout."""

    def renewed(self, began: float) -> View:
        """The same layout, read again."""
        view = View(self.layout, self.document, began)
        view.lanes = self.lanes
        return view

    def kept(self, now: float) -> View:
        """The store could not be asked: go on for a moment, under the old lease."""
        view = self.renewed(now)
        view.lease_until = self.lease_until
        view.unread = True
        # I13: the lease may end before the next look, and the hit path looks at nothing else.
        view.lanes = {entity: lane for entity, lane in list(self.lanes.items()) if not entity.strong}
        return view

    @property
    def leased(self) -> bool:
        """The lease has not lapsed."""
        return time.monotonic() < self.lease_until


def fixed_view(nodes: Sequence[str] = ()) -> View:
    """For a cache without a store: nothing ever moves, and every process that is given the same nodes agrees."""
    view = View(Layout(0, Placing("0", "0", slots=fixed_slots(nodes) if nodes else None)), None, 0.0)
    view.refresh_at = view.lease_until = float("inf")
    return view


class LayoutView:
    """Keeps the view current. `nodes`: those of the pool that this process was given, for a layout that names none."""

    def __init__(
        self, store: AsyncStore | None, world: World, note: Callable[[str], None], nodes: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._world = world
        self._note = note
        self._nodes = nodes
        self._reading = 0.0
        self._left: tuple[int, float] = 0, 0.0
        """A change that is to become current, and since when it was seen to wait."""
        self.view: View | None = None if store is not None else fixed_view(nodes)

    async def current(self) -> View:
        """The view, read anew where that is due. Raises `StoreError` if there never was one."""
        view, now = self.view, time.monotonic()
        if view is not None and now < view.refresh_at:
            return view
        # One call reads and the others go on, while the lease runs or the store is known to be down.
        if view is not None and (view.leased or view.unread) and now - self._reading < REFRESH_MS / 1000:
            return view
        self._reading = now
        if view is None:
            return await self.read()
        # A store that hangs must not hold up who only wants to hit.
        if await self._world.within(PATIENCE_S, self.read):
            return self.view or view
        self._note("layout_unread")
        return self._taken(view.kept(time.monotonic()))

    async def leased(self) -> View:
        """A view under a lease. Raises `StoreError` where the store cannot be asked."""
        view = await self.current()
        return view if view.leased else await self.read(required=True)

    async def read(self, *, required: bool = False) -> View:
        """Read the layout now. `required`: an old view under an old lease will not do."""
        if self._store is None:
            return self.view or fixed_view(self._nodes)
        old, began = self.view, time.monotonic()
        try:
            document = await self._store.read_layout() or await self._first(self._store)
            document = await self._looked_after(self._store, document, began)
        except StoreError:
            self._note("layout_unread")
            if old is None or required:
                raise
            return self._taken(old.kept(time.monotonic()))
        if old is not None and old.document == document:
            return self._taken(old.renewed(began))
        if old is not None:
            self._note("layout_changed")
        return self._taken(View(decode_layout(document), document, began))

    def _taken(self, view: View) -> View:
        """Go on by this view, unless another call of this process has begun to read later."""
        newest = self.view
        if newest is not None and newest.lease_until > view.lease_until:
            return newest
        self.view = view
        return view

    async def _first(self, store: AsyncStore) -> bytes:
        document = encode_layout(first_layout(self._nodes))
        try:
            await store.write_layout(document, None)
        except LayoutConflict:
            return await store.read_layout() or document
        return document

    async def _looked_after(self, store: AsyncStore, document: bytes, now: float) -> bytes:
        """The document, after what nobody else may do: name this pool's nodes, complete what its publisher left."""
        old = self.view
        if old is not None and old.document == document and old.layout.next is None:
            return document  # of nearly every reading
        layout = decode_layout(document)
        changed = layout
        if layout.next is not None:
            number, since = self._left
            if number != layout.number:
                self._left = layout.number, now
            elif now - since > 2 * LEASE_MS / 1000 + LEFT_S * (1 + random()):
                changed = completed(layout)
        elif self._nodes and not layout.pooled:
            changed = with_nodes(layout, self._nodes)
        if changed is layout:
            return document
        written = encode_layout(changed)
        try:
            await store.write_layout(written, document)
        except LayoutConflict:
            return await store.read_layout() or document
        return written

    async def publish(self, change: Callable[[Layout], Layout]) -> Layout:
        """Write a changed layout over the one in the store."""
        if self._store is None:
            raise ConfigError("this needs Cache(store=…): epochs and modes are kept where all clients read them")
        for _ in range(CHANGE_TRIES):
            view = await self.read(required=True)
            changed = change(view.layout)
            if changed == view.layout:
                return changed
            try:
                await self._store.write_layout(encode_layout(changed), view.document)
            except LayoutConflict:
                continue
            await self.read(required=True)
            return changed
        raise LayoutConflict(f"others changed the layout {CHANGE_TRIES} times while this was tried; try again")

    async def settle(self, published: Layout) -> None:
        """Make a published change current: two lease times later, when every client has taken it up."""
        for _ in range(SETTLE_TRIES):
            await self._world.sleep(2 * LEASE_MS / 1000)
            layout = (await self.read(required=True)).layout
            if layout.next is None:
                return
            if layout.number == published.number:
                layout = await self.publish(_completed_if(published.number))
                if layout.next is None:
                    return
            published = layout  # somebody published on top: theirs has to wait, and ours with it
        raise LayoutConflict(f"others changed the layout {SETTLE_TRIES} times while a change was to settle; try again")


def _completed_if(number: int) -> Callable[[Layout], Layout]:
    return lambda layout: completed(layout) if layout.number == number else layout
