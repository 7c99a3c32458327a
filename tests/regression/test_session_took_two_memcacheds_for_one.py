"""A memcached tells its process id and the second of its start: in two containers that begin together both are the
same. A session that went from a cache over the one to a cache over the other took them for one server, and believed
that this one had been told what that one was.

The simulation had found it (seed 4291), and its servers were made to begin in different seconds; now they do not.
"""

from __future__ import annotations

from cachelib.testing.sim import Deed, Plan, Profile, Runner, simulation

WRITTEN_IN_ONE_READ_IN_THE_OTHER = (
    Deed(0, "read", 0, ("list", 0), 1),
    Deed(100_000, "user_write", 1, (0, 1, 0, 101, "well"), 2),
    Deed(120_000, "user_read", 0, (0, "list", 0), 3),
)


def test_what_one_memcached_was_told_is_not_expected_of_another_that_tells_the_same_start() -> None:
    plan = Plan(0, Profile(level="eventual", cas=True, nodes=2, write="invalidate"), WRITTEN_IN_ONE_READ_IN_THE_OTHER)
    with simulation():
        outcome = Runner().run(plan, told=True)
    assert outcome.well, "\n".join([*outcome.story, outcome.what])
    assert outcome.reads >= 2
