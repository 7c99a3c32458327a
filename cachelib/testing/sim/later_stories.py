"""Stories that were thought of later, each for a rule that no seed had missed when it was dropped.

They have seeds of their own (`has_later_story`), so that every other seed stays the run that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TypeAlias

from cachelib.testing.sim.profile import SECOND_US, Profile
from cachelib.testing.sim.script import MS, Deeds, Script
from cachelib.testing.sim.store import Weather
from cachelib.testing.sim.stories import with_invalidator

Story: TypeAlias = Callable[[Random, Profile], tuple[Profile, Deeds]]

OF_LEVELS, OF_THE_LOG, OF_FLIGHTS = 6, 3, 10
"""Remainders of their seeds, divided by 16, by 32 and by 64. None is that of a seed that had found a mutant before."""


def has_later_story(seed: int) -> bool:
    """Whether a seed has one of these."""
    return seed % 16 == OF_LEVELS or seed % 32 == OF_THE_LOG or seed % 64 == OF_FLIGHTS


def round_cut_in_two(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A restart cuts a writer's round in two, and when it goes on another item has its CAS id by chance (I14).

    What it had read was leased, to a reader who loads meanwhile what one more write makes old.
    """
    profile = replace(
        profile, level="strong", write="invalidate", source="none", nodes=1, cas=True, skews_us=(0, 0, 0), rows=2,
        ttl="1h", early=0.0, hold="3s", wait_max="30ms", slow=0.0, lost=0.0, late=0.0, weather=Weather(),
        faults=frozenset(), refresh=False,
    )  # fmt: skip
    script, number = Script(random, profile), random.choice([0, 1])
    reader, writer, other = random.sample(range(3), 3)
    for who in range(3):
        script.read(random.uniform(0, 0.4) * MS, "row", 2, who)
    read_us = 60 * MS
    write_us = read_us + random.uniform(-1.5, 1) * MS
    on_us = read_us + random.uniform(14, 22) * MS  # the reader loads
    over_us = on_us + random.uniform(4, 9) * MS  # the writer's round goes on
    script.read(read_us, "row", number, reader)
    _pause(script, reader, read_us + random.uniform(0.9, 2.0) * MS, on_us)
    script.write(write_us, number, writer)
    script.at(write_us + random.uniform(1.2, 2.2) * MS, "fuse", 0, 1)
    _pause(script, writer, write_us + random.uniform(2.0, 3.5) * MS, over_us)
    for first, last in ((4, 7), (7, 10)):  # it meets the server, and fills
        script.read(write_us + random.uniform(first, last) * MS, "row", number, other)
    script.write(on_us + random.uniform(-0.5, 2) * MS, number, other)
    _pause(script, reader, on_us + random.uniform(0.4, 1.8) * MS, over_us + random.uniform(1.5, 5) * MS)
    return profile, script.done()


def _pause(script: Script, who: int, us: float, until_us: float) -> None:
    script.at(us, "pause", who, max(1, int(until_us - us)))


def proof_by_old_names(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A client that cannot reach the store goes by an old layout: what is proven of the node is so of new names."""
    profile = replace(with_invalidator(random, profile, nodes=1), source="outbox", skews_us=(0, 0))
    script, number, clear_us = Script(random, profile), random.choice([0, 1]), SECOND_US
    for who in range(2):
        script.read(random.randint(0, 600 * MS), "row", number, who)
    script.at(random.randint(600, 900) * MS, "bounded_read", 1, "row", number, "3s")
    script.at(clear_us + random.uniform(-100, 1_500) * MS, "store_cut", 1, random.choice([4, 8]) * SECOND_US)
    script.at(clear_us, "clear", 0, "all")
    current_us = clear_us + 4 * SECOND_US
    script.some(2, current_us, current_us + SECOND_US, lambda us: script.write_past(us, number, who=0))
    for _ in range(8):
        us = random.uniform(current_us - SECOND_US, current_us + 3 * SECOND_US)
        script.at(us, "bounded_read", 1, "row", number, random.choice(["100ms", "300ms", "1s"]))
    return profile, script.done()


def proof_beside_a_load(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A write overtakes a long load and the node is told of it: that proves what the node holds, and not the load."""
    profile = replace(with_invalidator(random, profile, nodes=1), source="outbox", hold="3s", wait_max="2s")
    script, number = Script(random, profile), random.choice([0, 1])
    for who in range(script.clients):
        script.at(random.randint(100, 900) * MS, "bounded_read", who, "row", 2, "3s")
    load_us, long_us = random.uniform(1_200, 2_000) * MS, random.choice([700, 1_500, 2_500]) * MS
    script.at(load_us, "slow_load", 0, 0, long_us)
    script.read(load_us + MS, "row", number, 0)
    for _ in range(random.choice([1, 2])):
        script.write_past(load_us + random.uniform(2, 300) * MS, number)
    for _ in range(4):
        us = load_us + random.uniform(0.2, 1) * long_us
        script.at(us, "bounded_read", random.choice([0, 0, 1]), "row", number, random.choice(["300ms", "1s"]))
    return profile, script.done()


def dropped_beside_a_load(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A user sees what is newer than a load under way, and his token has to drop it before that one ends."""
    profile = replace(
        profile, level="eventual", source="none", nodes=1, skews_us=(0, 0), rows=2, marks=2, ttl="1h", early=0.0,
        hold="3s", wait_max=random.choice(["0s", "30ms"]), slow=0.0, lost=0.0, late=0.0, faults=frozenset(),
        weather=Weather(versions=profile.weather.versions), refresh=False,
    )  # fmt: skip
    script, number = Script(random, profile), random.choice([0, 1])
    others = [("row", 1 - number), ("row", 2)]
    for who in range(2):
        script.at(2 * MS * who, "user_read", who, 0, *others[1])
    load_us, long_us = 60 * MS, random.choice([60, 120]) * MS
    script.at(load_us, "slow_load", 1, 0, long_us)
    script.read(load_us + MS, "row", number, 1)
    write = script.write_past if random.random() < 0.5 else script.write
    write(load_us + random.uniform(4, 8) * MS, number, who=0)
    if random.random() < 0.5:
        script.at(load_us + random.uniform(11, 14) * MS, "evict", 0, "row", number)
    script.at(load_us + 15 * MS, "user_read", 0, 0, "row", number)
    for at, other in enumerate(others):
        script.at(load_us + (22 + 6 * at + random.uniform(0, 3)) * MS, "user_read", 0, 0, *other)
    if random.random() < 0.5:
        script.at(load_us + random.uniform(35, 45) * MS, "evict", 0, "row", number)
    for _ in range(3):
        us = load_us + random.choice([45 * MS, long_us]) + random.uniform(0, 30) * MS
        script.at(us, "user_read", script.anybody(), 0, "row", number)
    return profile, script.done()


def seen_long_after_its_clock(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """Two caches load the same; whose clock was read first has the later snapshot. A user goes from it to the other."""
    profile = replace(
        profile, level="eventual", source="none", nodes=2, skews_us=(0, 0), rows=2, marks=random.choice([2, 64]),
        ttl="1h", early=0.0, slow=0.0, lost=0.0, late=0.0, faults=frozenset(), refresh=False,
        weather=Weather(versions=profile.weather.versions),
    )  # fmt: skip
    script, load_us, long_us = Script(random, profile), 60 * MS, random.choice([20, 60]) * MS
    number = random.choice([0, 1])
    kind, which = random.choice([("row", number), ("list", 0), ("list", 0)])
    for who in range(2):
        script.at(2 * MS * who, "user_read", who, 0, "row", 2)
    script.at(load_us, "slow_load", 0, long_us, 0)
    script.read(load_us + MS, kind, which, 0)
    script.read(load_us + random.uniform(0.1, 0.7) * long_us, kind, which, 1)
    script.write_past(load_us + random.uniform(0.2, 1) * long_us, number, who=1, gone=random.random() < 0.4)
    for at in range(3):
        us = load_us + random.uniform(1.1, 1.5) * long_us + at * 10 * MS
        script.at(us, "user_read", script.anybody(), 0, kind, which)
    return profile, script.done()


def back_from_before_the_first_note(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A node comes back with items that it had before the invalidator's first note, noticed or not (I11)."""
    profile = with_invalidator(random, profile, nodes=random.choice([1, 2]))
    script = Script(random, profile)
    script.warm()
    script.at(random.uniform(6, 18) * MS, "keep", 0)
    back_us = random.uniform(500, 1_500) * MS
    script.some(random.choice([1, 3]), 200 * MS, back_us, script.write_past_any)
    script.at(back_us, "come_back", 0)
    script.some(random.choice([0, 1, 2]), back_us, back_us + random.choice([20, 200]) * MS, script.write_past_any)
    return profile, script.done()


def told_at_once(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """The invalidator stands still while a row is changed again and again: it reads all that in one batch (I9)."""
    profile = with_invalidator(random, profile, nodes=1)
    weather = replace(profile.weather, versions=random.random() < 0.4, hidden_us=0)
    profile = replace(profile, weather=weather)
    script, number, still_us = Script(random, profile), random.randrange(3), random.uniform(500, 900) * MS
    script.warm(100 * MS)
    script.at(still_us, "daemon_pause", 0, random.choice([30, 100]) * MS)
    for at in range(random.choice([2, 2, 3])):
        script.write_past(still_us + (2 + 7 * at) * MS, number, gone=random.random() < 0.5)
    return profile, script.done()


def own_write_beside_a_load(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A client writes a key that another of its calls is loading, and reads it, while that load is still under way."""
    profile = replace(
        profile, level="eventual", source="none", nodes=1, skews_us=(0, 0), ttl="1h", early=0.0, hold="3s",
        wait_max="2s", slow=0.0, lost=0.0, late=0.0, faults=frozenset(), refresh=False,
        weather=Weather(versions=profile.weather.versions),
    )  # fmt: skip
    script, number = Script(random, profile), random.choice([0, 1])
    script.warm()
    load_us, long_us = 60 * MS, random.choice([60, 120]) * MS
    kind, which = random.choice([("row", number), ("row", number), ("list", 0)])
    script.at(load_us - 5 * MS, "evict", 0, kind, which)
    script.at(load_us, "slow_load", 0, 0, long_us)
    script.read(load_us + MS, kind, which, 0)
    write_us = load_us + random.uniform(3, 20) * MS
    script.write(write_us, number, who=0)
    for at in range(6):
        script.read(write_us + random.uniform(1, 6) * (at + 1) * MS, kind, which, random.choice([0, 0, 0, 1]))
    return profile, script.done()


STORIES: tuple[Story, ...] = (
    round_cut_in_two,
    proof_by_old_names,
    proof_beside_a_load,
    dropped_beside_a_load,
    seen_long_after_its_clock,
)


STORIES_OF_THE_LOG: tuple[Story, ...] = (back_from_before_the_first_note, told_at_once)
STORIES_OF_FLIGHTS: tuple[Story, ...] = (own_write_beside_a_load,)


def later_story_of(seed: int, random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """One of them."""
    stories = STORIES_OF_FLIGHTS if seed % 64 == OF_FLIGHTS else STORIES_OF_THE_LOG
    if seed % 16 == OF_LEVELS:
        stories = STORIES
    return random.choice(stories)(random, profile)
