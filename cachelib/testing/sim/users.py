"""Who asks for more than an entity promises: users, whose tokens go from client to client, and bounded reads.

A user's requests may overlap, as a browser's do: each begins with the token that came back last, and what it has
seen is known to that token alone. So what a request may not be older than is what its own token's past knew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachelib.errors import Unconfirmed
from cachelib.policy import Bounded
from cachelib.testing.sim.client import Client
from cachelib.testing.sim.profile import Deed

if TYPE_CHECKING:
    from cachelib.testing.sim.world import World

ABSENT = object()
"""What a read gives where there is no row."""


class User:
    """A person: the token that came back last, and what the session behind it wrote and was shown."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.seen: dict[str, int] = {}


class Request:
    """What a user asks of a client, under his session."""

    def __init__(self, world: World, client: Client, user: User) -> None:
        self.world, self.client, self.user = world, client, user
        self.session = client.cache.session(user.token)
        self.seen = dict(user.seen)

    async def read(self, kind: str, number: int) -> None:
        """Read a key. Raises `Violation`."""
        world, key = self.world, f"{kind}:{number}"
        begun = world.history.begin(key, world.loop.now_us)
        mine = world.history.begin_in(self.seen, key, world.loop.now_us)
        value = await self.session.get(world.entity(kind), number, default=ABSENT)
        state = world.checks(self.client, begun, value)
        world.history.in_session(self.seen, mine, state)
        self.ended()

    async def write(self, number: int, grp: int, tag: int | None, fate: str) -> None:
        """Write a row, or delete it; what is committed and said to be, this session has seen."""
        world, rows = self.world, self.world.entities[0]
        world.writes += 1
        connection: Any = None
        try:
            async with self.session.transaction() as tx:
                connection = tx.connection
                connection.fate = fate
                await (tx.delete(rows, number) if tag is None else tx.put(rows, number, [grp, tag]))
        except Unconfirmed:
            self.wrote(connection)
            raise
        self.wrote(connection)
        for key, place in connection.places if world.strong else ():
            world.history.acknowledged(key, place)

    def wrote(self, connection: Any) -> None:
        """It is committed, and this user knows it."""
        for key, place in connection.places:
            self.world.history.saw(self.seen, key, place)
        self.ended()

    def ended(self) -> None:
        """The answer goes back, with its token."""
        self.user.token, self.user.seen = self.session.token, dict(self.seen)


async def user_read(world: World, client: Client, deed: Deed) -> None:
    """A user reads a key."""
    user, kind, number = deed.what
    await Request(world, client, world.users[user]).read(kind, number)


async def user_write(world: World, client: Client, deed: Deed) -> None:
    """A user writes a row, and mostly reads it, or a list, at once."""
    user, number, grp, tag, fate = deed.what
    request = Request(world, client, world.users[user])
    await request.write(number, grp, tag, fate)
    chance = world.loop.current.random.random()
    if chance < 0.7:
        await request.read(*(("row", number) if chance < 0.4 else ("list", grp)))


async def bounded_read(world: World, client: Client, deed: Deed) -> None:
    """A read of something that may be so old. Raises `Violation`."""
    kind, number, max_age = deed.what
    level, key = Bounded(max_age), f"{kind}:{number}"
    begun = world.history.begin(key, world.loop.now_us)
    found = await client.cache.read(world.entity(kind), number, consistency=level)
    state = world.checks(client, begun, found.value if found.found else ABSENT)
    world.history.bounded(begun, state, level.max_age_us)
    if found.age_ms is not None:
        world.history.bounded(begun, state, (found.age_ms + 1) * 1000, "age")


CALLS = {"user_read": user_read, "user_write": user_write, "bounded_read": bounded_read}
"""By the kind of the deed."""
