"""Seeded simulation of the whole protocol: one thread, virtual time, every fault that a seed asks for.

The code under test is the code: the asyncio face, `steps.py`, `item.py`, layouts, transactions, the
rounds of memcached. What is simulated is around it: clocks, the store, nodes, networks, and the
moments at which programs stop, die or are cancelled.

    with simulation():
        outcome = Runner().run(plan_of(seed))

`plan.py` and `stories.py` draw what happens, `world.py` does it, `history.py` checks it, `run.py` shortens what failed.
"""

from __future__ import annotations

from cachelib.testing.sim.plan import plan_of
from cachelib.testing.sim.profile import Deed, Plan, Profile
from cachelib.testing.sim.run import Outcome, Runner, simulation

__all__ = ["Deed", "Outcome", "Plan", "Profile", "Runner", "plan_of", "simulation"]
