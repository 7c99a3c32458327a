"""What happens in a run: a profile of the world, and deeds with the moments at which they begin. All from one seed.

Each run has only some of the faults (swarm testing: Groce et al., 2012), because a world in which
everything goes wrong at once finds less. A deed carries the seed of its own chance, so that a
story can be shortened by leaving deeds out without changing what the others do.
"""

from __future__ import annotations

from random import Random
from typing import Any

from cachelib.testing.sim.later_stories import has_later_story, later_story_of
from cachelib.testing.sim.profile import SECOND_US, Deed, LevelName, Plan, Profile, SourceName
from cachelib.testing.sim.store import Weather
from cachelib.testing.sim.stories import story_of

# --- from a seed -----------------------------------------------------------------------------

STORIES_SHARE = 0.5
"""So many of the seeds have a story that is arranged."""
STRONG_FAULTS = ("evict", "restart", "cut", "pause", "kill", "cancel", "store_down", "garbage", "unknown", "old")
ROUGH_FAULTS = (*STRONG_FAULTS, "node_down", "daemon_kill", "daemon_pause")
BUS_FAULTS = ("repeat", "rewind", "truncate_bus", "delay_bus")


def plan_of(seed: int) -> Plan:
    """The run of a seed."""
    random = Random(seed)
    profile = _profile(random)
    if has_later_story(seed):
        return Plan(seed, *later_story_of(seed, random, profile))
    if random.random() < STORIES_SHARE:
        return Plan(seed, *story_of(random, profile))
    return Plan(seed, profile, _deeds(random, profile))


def _profile(random: Random) -> Profile:
    levels: list[LevelName] = ["strong", "strong-or-store", "eventual"]
    level = random.choices(levels, [56, 12, 32])[0]
    eventual = level == "eventual"
    told = random.random() < (0.45 if eventual else 0.06)
    source: SourceName = random.choice(["outbox", "outbox", "early", "bus"]) if told else "none"
    possible = ROUGH_FAULTS + (BUS_FAULTS if source == "bus" else ()) if eventual and told else STRONG_FAULTS
    faults = frozenset(fault for fault in possible if random.random() < 0.35)
    versions = random.random() < 0.8
    early = source in ("early", "bus")
    weather = Weather(
        versions=versions,
        slow=random.choice([0.0, 0.1, 0.4]),
        slow_us=random.choice([5_000, 100_000, 700_000]),
        hidden_us=random.choice([0, 3_000, 200_000]) if early or random.random() < 0.3 else 0,
        lag_us=random.choice([0, 300_000]) if eventual and source == "bus" else 0,
    )
    clients = random.choice([1, 2, 2, 3])
    skews = (0, 0, 0, 40, -40, 3_000_000, -3_000_000, 86_400_000_000, -86_400_000_000)
    refresh = told and random.random() < 0.3
    return Profile(
        level=level,
        write="invalidate" if refresh else random.choice(["through", "through", "populate", "invalidate"]),
        refresh=refresh,
        ttl=random.choice(["1h", "1h", "1s"]),
        early=random.choice([0.0, 0.0, 0.9]),
        wait_max=random.choice(["0s", "30ms", "2s"]),
        hold=random.choice(["50ms", "300ms", "3s"]),
        cas=random.random() < 0.25,
        nodes=random.choice([1, 2]) if eventual else 1,
        skews_us=tuple(random.choice(skews) for _ in range(clients)),
        rows=random.choice([0, 1, 2]),
        groups=random.choice([1, 2]),
        weather=weather,
        slow=random.choice([0.0, 0.1, 0.4]),
        lost=random.choice([0.0, 0.0, 0.03, 0.15]),
        late=random.choice([0.0, 0.0, 0.03, 0.15]),
        source=source,
        marks=random.choice([2, 3, 64]),
        faults=faults,
    )


def _deeds(random: Random, profile: Profile) -> tuple[Deed, ...]:
    layouts = random.random() < 0.3
    span_us = 9 * SECOND_US if layouts else random.choice([10_000, 300_000, 3 * SECOND_US])
    count = random.choice([6, 12, 24])
    moments = [random.randint(0, span_us) for _ in range(random.choice([1, 2, max(2, count // 4)]))]
    spread_us = random.choice([500, 2_000, 10_000, max(20_000, profile.weather.slow_us // 2)])
    focus = random.choice([(), ("row",), ("list",)])
    kinds, weights = _weights(random, profile, layouts)
    deeds = []
    for number in range(count):
        at_us = random.choice(moments) + int(random.expovariate(1 / spread_us))
        kind = random.choices(kinds, weights)[0]
        deeds.append(_deed(random, profile, kind, at_us, number + 1, focus))
    return tuple(sorted(deeds, key=lambda deed: deed.at_us))


def _weights(random: Random, profile: Profile, layouts: bool) -> tuple[list[str], list[float]]:
    weights: dict[str, float] = {"read": 45, "read_many": random.choice([0, 6]), "write": random.choice([10, 30])}
    weights |= {"delete": random.choice([0, 6]), "move": random.choice([0, 4]), "write_two": random.choice([0, 4])}
    if layouts:
        weights |= {"clear": 5, "mode": random.choice([0, 3]), "truncate": random.choice([0, 2])}
    weights["invalidate"] = random.choice([0, 2])
    if profile.level == "eventual":
        weights["write_past"] = random.choice([0, 20])
    if not profile.weather.lag_us:  # of a replica nobody can promise more
        users = (0, 30) if profile.level == "eventual" else (0, 0, 15)
        weights["user_read"] = random.choice(users)
        weights["user_write"] = weights["user_read"] / 2
        weights["bounded_read"] = random.choice([0, 25]) if profile.level == "eventual" else 0
    faults = sorted(profile.faults - {"unknown"})
    weights |= {fault: 25 / len(faults) for fault in faults}
    return list(weights), list(weights.values())


def _deed(random: Random, profile: Profile, kind: str, at_us: int, tag: int, focus: tuple[str, ...]) -> Deed:
    """`focus`: what is read, where all that is done concerns one key."""
    who = random.randrange(len(profile.skews_us))
    number = 0 if focus == ("row",) else random.choice([0, 0, 1, 2])
    grp = 0 if focus and profile.groups == 1 else random.randrange(profile.groups)
    what: tuple[Any, ...] = ()
    if kind in ("read", "evict", "garbage", "invalidate"):
        what = (random.choice(focus or ("row", "row", "list")), number)
        what = what if what[0] == "row" else ("list", grp)
    elif kind == "write":
        what = (number, grp, tag, _fate(random, profile))
    elif kind == "write_two":
        what = (number, (number + 1) % 3, grp, tag, _fate(random, profile))
    elif kind == "write_past":
        what = (number, grp, random.choice([tag, tag, None]))
    elif kind == "user_read":
        what = (random.randrange(2), *random.choice([("row", number), ("row", number), ("list", grp)]))
    elif kind == "user_write":
        what = (random.randrange(2), number, grp, random.choice([tag, tag, tag, None]), _fate(random, profile))
    elif kind == "bounded_read":
        max_age = random.choice(["5ms", "100ms", "1s", "3s"])
        what = (*random.choice([("row", number), ("list", grp)]), max_age)
    elif kind == "delete":
        what = (number, _fate(random, profile))
    elif kind == "move":
        what = (number, (grp + 1) % profile.groups, tag, _fate(random, profile))
    elif kind == "mode":
        what = (random.choice(["on", "on", "no_fill", "bypass"]),)
    elif kind == "clear":
        what = (random.choice(["all", "row", "list"]),)
    elif kind in ("cut", "pause", "node_down", "store_down", "daemon_pause", "daemon_kill", "delay_bus"):
        what = (random.choice([3_000, 100_000, 700_000, 2_500_000, 7_000_000]),)
    return Deed(at_us, kind, who, what, random.getrandbits(30))


def _fate(random: Random, profile: Profile) -> str:
    if "unknown" in profile.faults and random.random() < 0.2:
        return random.choice(["lost", "late", "never"])
    return random.choice(["well", "well", "slow"])
