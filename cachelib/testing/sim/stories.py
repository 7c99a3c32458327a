"""Stories whose beginning is arranged: what has to come together for a race, drawn near enough to each other.

A plan of independent deeds comes upon some situations once in many thousand runs: a server that returns with
what it had before a write, a reader whose layout is a second old when a new name becomes current. Here the
situation is the story, and chance has what is left: which key, who, what else, and when exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, TypeAlias

from cachelib.testing.sim.profile import SECOND_US, LevelName, Profile, SourceName
from cachelib.testing.sim.script import MS, Deeds, Script
from cachelib.testing.sim.store import Weather

Story: TypeAlias = Callable[[Random, Profile], tuple[Profile, Deeds]]


def _clients(random: Random, *counts: int) -> tuple[int, ...]:
    return (0,) * random.choice(counts)


def came_back(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A server comes back with what it had before a write that was acknowledged (failover)."""
    skews_us, told = _clients(random, 1, 2, 3), random.random() < 0.15
    profile = replace(
        profile, level="strong", source="outbox" if told else "none", nodes=1, rows=2, skews_us=skews_us, lost=0.0
    )
    script, number = Script(random, profile), random.choice([0, 0, 1])
    us = (1_200 if told else 40) * MS  # by then it is proven what the node knows
    for who in range(script.clients):
        script.read(0, "row", number, who)
        if told:
            script.read(us - 50 * MS, "row", number, who)
    script.at(us, "keep", 0)
    for _ in range(random.choice([1, 2])):
        script.write(us + random.uniform(1, 20) * MS, number)
    script.at(us + random.uniform(15, 50) * MS, "come_back", 0)
    script.some(4, us + 20 * MS, us + 80 * MS, lambda us: script.read(us, "row", number))
    if random.random() < 0.5:
        script.write(us + random.uniform(20, 80) * MS, number)
    return profile, script.done()


def lease_taken_over(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A slow load comes home when its lease is another reader's by now, who is slow, too, or never comes home (I4)."""
    slow_us = random.choice([30_000, 100_000])
    weather = Weather(versions=random.random() < 0.3, slow=0.6, slow_us=slow_us, hidden_us=0)
    profile = replace(
        profile, level="strong", source="none", nodes=1, skews_us=(0, 0, 0), rows=random.choice([0, 2]),
        weather=weather, hold=random.choice(["50ms", "300ms"]), wait_max=random.choice(["0s", "30ms"]),
        lost=0.0, late=0.0, early=0.0,
    )  # fmt: skip
    script = Script(random, profile)
    kind = random.choice(["row", "list"])
    number = 0 if kind == "list" else 1
    for who in range(3):
        script.read(0, "row", 2, who)
    first_us = 10 * MS + 3 * slow_us
    script.read(first_us, kind, number)
    for _ in range(random.choice([1, 1, 2])):
        script.write(first_us + random.uniform(-0.5, 1.5) * slow_us, number)
    script.some(5, first_us, first_us + 3 * slow_us, lambda us: script.read(us, kind, number))
    for _ in range(random.choice([0, 1, 1])):
        script.at(first_us + random.uniform(0.3, 3) * slow_us, random.choice(["kill", "cancel"]), script.anybody())
    return profile, script.done()


def moving(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """New names are published and become current, while clients read and write by views of different age (I13)."""
    level: LevelName = random.choice(["strong", "strong", "strong-or-store"])
    profile = replace(
        profile, level=level, source="none", nodes=1, rows=2, skews_us=_clients(random, 2, 3), ttl="1h",
        weather=replace(profile.weather, slow=min(profile.weather.slow, 0.1), hidden_us=0), lost=0.0, late=0.0,
    )  # fmt: skip
    script = Script(random, profile)
    for who in range(script.clients):
        script.read(random.randint(0, 900 * MS), who=who)
    clear_us = SECOND_US
    script.at(clear_us, "clear", 0, random.choice(["all", "row"]))
    if random.random() < 0.4:  # while it is new
        first_us, last_us = clear_us - 600 * MS, clear_us + 2_200 * MS
    else:  # while it becomes current
        first_us, last_us = clear_us + 3_000 * MS, clear_us + 6_200 * MS
    number = random.choice([0, 0, 1])
    script.some(random.choice([6, 10]), first_us, last_us, lambda us: script.read(us, number=number))
    script.some(random.choice([2, 4]), first_us, last_us, lambda us: script.write(us, number))
    if random.random() < 0.15:  # whoever published it leaves it to others
        script.at(clear_us + random.uniform(0.1, 4) * SECOND_US, "kill", 0)
    return profile, script.done()


def rounds(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """Many change one item of a memcached at once, which may restart in the middle of a round (I14)."""
    told = random.random() < 0.35
    profile = replace(
        profile, level=random.choice(["strong", "eventual"]) if told else "strong", source="outbox" if told else "none",
        nodes=1, cas=True, skews_us=_clients(random, 2, 3), ttl="1h", rows=2, slow=random.choice([0.1, 0.4]),
        lost=0.0, late=0.0, weather=replace(profile.weather, hidden_us=0, lag_us=0),
    )  # fmt: skip
    script, first_us = Script(random, profile), (600 if told else 30) * MS
    spread_us = random.choice([4, 15, 40]) * MS
    if random.random() < 0.7:
        for who in range(script.clients):
            script.read(0, who=who)
    script.some(random.choice([3, 6]), first_us, first_us + spread_us, script.read)
    script.some(random.choice([1, 2, 3]), first_us, first_us + spread_us, script.write)
    if random.random() < 0.6:
        script.at(first_us + random.uniform(0, 0.5) * spread_us, "fuse", 0, random.randint(1, 14))
    if random.random() < 0.3:
        script.at(first_us + random.uniform(0.5, 3) * spread_us, "kill", script.anybody())
    return profile, script.done()


def with_invalidator(random: Random, profile: Profile, **changes: Any) -> Profile:
    """With an invalidator, and nobody who would mend what it forgets: readers find what they find."""
    kinds: list[SourceName] = ["outbox", "early", "bus"]
    source = random.choice(kinds) if profile.source == "none" else profile.source
    hidden_us = random.choice([0, 3_000, 200_000]) if source != "outbox" else 0
    weather = replace(profile.weather, hidden_us=hidden_us, lag_us=0, slow=0.0)
    plain = replace(
        profile, level="eventual", source=source, cas=False, rows=2, ttl="1h", early=0.0, slow=0.0, lost=0.0,
        late=0.0, weather=weather, skews_us=_clients(random, 1, 2), faults=frozenset(), refresh=random.random() < 0.3,
    )  # fmt: skip
    return replace(plain, **changes)


def overtaken(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A slow load is overtaken by a write; who knows of that, or wants it newer, must not join it (levels)."""
    slow_us = random.choice([30_000, 100_000])
    weather = Weather(versions=random.random() < 0.7, slow=0.7, slow_us=slow_us)
    clients = _clients(random, 2, 3)
    profile = replace(
        profile, level="eventual", source="none", nodes=random.choice([1, 2]), skews_us=clients, rows=2,
        weather=weather, hold="3s", lost=0.0, late=0.0, ttl="1h",
    )  # fmt: skip
    script, number = Script(random, profile), random.choice([0, 1])
    for who in range(script.clients):
        script.read(0, "row", 2, who)
        script.at(20 * MS, "bounded_read", who, "row", 2, "3s")
    first_us = 50 * MS + 4 * slow_us
    script.some(random.choice([1, 2]), first_us, first_us + slow_us, lambda us: script.read(us, "row", number))
    script.some(2, first_us - slow_us, first_us + slow_us, lambda us: script.user_write(us, number))
    for _ in range(4):
        us = random.uniform(first_us, first_us + 2 * slow_us)
        if random.random() < 0.6:
            script.at(us, "user_read", script.anybody(), random.randrange(2), "row", number)
        else:
            script.at(us, "bounded_read", script.anybody(), "row", number, random.choice(["2ms", "10ms"]))
    return profile, script.done()


def carried(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A user goes from one cache to another that is behind, with a token too small for all that he has seen."""
    profile = replace(
        profile, level="eventual", source="none", nodes=2, skews_us=(0, 0), rows=2, marks=random.choice([2, 2, 3]),
        ttl="1h", weather=replace(profile.weather, slow=0.0, hidden_us=0), faults=frozenset(),
    )  # fmt: skip
    script, number = Script(random, profile), random.choice([0, 1])
    script.warm()
    us = 60.0 * MS
    here = random.randrange(2)
    for _ in range(random.choice([6, 10])):
        us += random.uniform(2, 15) * MS
        chance = random.random()
        who = here if random.random() < 0.6 else 1 - here
        if chance < 0.2:
            script.user_write(us, number, who)
        elif chance < 0.3:
            script.write(us, number, who)
        elif chance < 0.4:
            script.at(us, random.choice(["restart", "keep", "come_back", "cut"]), who, 100 * MS)
        else:
            kind, which = random.choice([("row", number), ("row", random.randrange(3)), ("list", 0)])
            script.at(us, "user_read", who, 0, kind, which)
    return profile, script.done()


def moving_proofs(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """As `moving`: what an invalidator proves is proven of the names that it knows."""
    profile = replace(with_invalidator(random, profile, nodes=1), source="outbox", level="eventual", skews_us=(0, 0))
    script, clear_us, number = Script(random, profile), SECOND_US, random.choice([0, 1])
    for who in range(2):
        script.read(random.randint(0, 900 * MS), number=number, who=who)
    script.at(clear_us, "clear", 0, "all")
    first_us, last_us = clear_us + 3_000 * MS, clear_us + 6_200 * MS
    for _ in range(10):
        us = random.uniform(first_us, last_us)
        script.at(us, "bounded_read", random.choice([0, 1, 1]), "row", number, random.choice(["100ms", "300ms", "1s"]))
    script.some(random.choice([2, 4]), first_us, last_us, lambda us: script.write_past(us, number))
    return profile, script.done()


def log_of_an_old_node(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A node comes back with what it had, its notes among it, between batches (I11)."""
    profile = with_invalidator(random, profile, nodes=random.choice([1, 2]))
    script, keep_us = Script(random, profile), random.choice([900, 900, 900, 20]) * MS
    script.warm(300 * MS if keep_us > 300 * MS else 0)
    script.at(keep_us + random.randint(0, 300) * MS, "keep", 0)
    back_us = keep_us + random.uniform(0.4, 2.0) * SECOND_US
    script.some(random.choice([1, 3]), keep_us + 300 * MS, back_us, script.write_past_any)
    script.at(back_us, "come_back", 0)
    script.some(random.choice([0, 2]), back_us, back_us + 500 * MS, script.write_past_any)
    return profile, script.done()


def log_of_a_node_behind(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """A node cannot be told for a while; then it loses its notes, or the invalidator starts anew (I9)."""
    profile = with_invalidator(random, profile, nodes=2, skews_us=(0, 0))
    script, cut_us = Script(random, profile), random.randint(700, 900) * MS
    script.warm(100 * MS)
    node, length_us = random.randrange(2), random.choice([300, 1_500, 3_500]) * MS
    script.at(cut_us, "daemon_cut", node, length_us)
    script.some(random.choice([1, 3]), cut_us, cut_us + 600 * MS, script.write_past_any)
    again_us = cut_us + random.uniform(0.4, 1.0) * length_us
    if random.random() < 0.7:
        script.at(again_us, "daemon_kill", 0, random.choice([3 * MS, 700 * MS]))
    if random.random() < 0.7:
        script.at(again_us + random.uniform(-50, 50) * MS, "forget_notes", node)
    if random.random() < 0.3:
        script.write_past_any(cut_us + length_us)
    return profile, script.done()


def log_ahead(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """The log shows what cannot be read yet; what it left is evicted, and old rows are loaded once more (I9)."""
    kinds: list[SourceName] = ["early", "bus"]
    source = random.choice(kinds)
    weather = Weather(versions=random.random() < 0.8, hidden_us=random.choice([100_000, 400_000]))
    profile = with_invalidator(random, profile, source=source, nodes=1, weather=weather)
    if random.random() < 0.4:
        profile = replace(profile, level="strong", write="invalidate", refresh=True)
    script, number = Script(random, profile), random.choice([0, 1])
    script.read(0)
    write = script.write if profile.level == "strong" else script.write_past
    for write_us in random.choice([(500,), (500, 560), (500, 1_400)]):
        write(write_us * MS, number)
        script.some(3, write_us * MS, (write_us + 350) * MS, lambda us: script.read(us, "row", number))
        script.at((write_us + random.uniform(1, 250)) * MS, "evict", 0, "row", number)
    if random.random() < 0.3:
        script.at(random.uniform(500, 900) * MS, "daemon_kill", 0, random.choice([3 * MS, 100 * MS]))
    return profile, script.done()


def log_in_one_batch(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """Several changes of one row are told at once: gone and there again, changed twice, repeated (I9)."""
    profile = with_invalidator(random, profile, nodes=1)
    profile = replace(profile, weather=replace(profile.weather, versions=random.random() < 0.4))
    script, first_us = Script(random, profile), 600 * MS
    script.warm(100 * MS)
    number = random.randrange(3)
    gap_us = random.choice([3, 10, 30]) * MS
    for at in range(random.choice([2, 3])):
        script.write_past(first_us + at * gap_us, number, gone=random.random() < 0.45)
    if profile.source == "bus" and random.random() < 0.5:
        kind = random.choice(["repeat", "rewind", "truncate_bus"])
        script.at(first_us + random.uniform(0, 200) * MS, kind, 0)
    return profile, script.done()


STORIES: dict[str, tuple[Story, int]] = {
    "came back": (came_back, 4),
    "lease taken over": (lease_taken_over, 4),
    "moving": (moving, 6),
    "rounds": (rounds, 5),
    "overtaken": (overtaken, 2),
    "carried": (carried, 2),
    "moving proofs": (moving_proofs, 1),
    "log of an old node": (log_of_an_old_node, 2),
    "log of a node behind": (log_of_a_node_behind, 2),
    "log ahead": (log_ahead, 1),
    "log in one batch": (log_in_one_batch, 1),
}
"""By name, each with its share."""


def story_of(random: Random, profile: Profile) -> tuple[Profile, Deeds]:
    """One of them."""
    story = random.choices([story for story, _ in STORIES.values()], [share for _, share in STORIES.values()])[0]
    return story(random, replace(profile, weather=replace(profile.weather, lag_us=0)))
