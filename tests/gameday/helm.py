"""`helm` for a game day: `rollback`, the one command of the runbook; anything else is an error.

The chart's own upgrades and rollbacks on a real API server are `make kube`.
"""

from __future__ import annotations

import argparse
import sys

from tests.gameday.kubectl import ask


def _options() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="helm")
    top.add_argument("-n", "--namespace", required=True)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("rollback").add_argument("release", choices=["invalidator"])
    return top


if __name__ == "__main__":
    sys.exit(ask(_options()))
