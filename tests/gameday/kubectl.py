"""`kubectl` for a game day: the few commands of the runbook, as written there, over processes in place of pods.

`get pods`, `logs`, `describe pod`, `delete pod` and `scale`; anything else is an error. (The same chart on a real API
server is `make kube`.) It asks the cluster of `cluster.py`, whose address is in GAMEDAY_CLUSTER.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.parse
import urllib.request


def _options() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="kubectl")
    top.add_argument("-n", "--namespace", required=True)
    verbs = top.add_subparsers(dest="verb", required=True)
    get = verbs.add_parser("get")
    get.add_argument("kind", choices=["pods"])
    get.add_argument("-l", "--selector", default="")
    logs = verbs.add_parser("logs")
    logs.add_argument("name")
    logs.add_argument("--tail", default="-1")
    logs.add_argument("--previous", action="store_true")
    describe = verbs.add_parser("describe")
    describe.add_argument("kind", choices=["pod"])
    describe.add_argument("name")
    delete = verbs.add_parser("delete")
    delete.add_argument("kind", choices=["pod"])
    delete.add_argument("name")
    delete.add_argument("--force", action="store_true")
    delete.add_argument("--grace-period", default="")
    scale = verbs.add_parser("scale")
    scale.add_argument("name")
    scale.add_argument("--replicas", required=True)
    return top


def main() -> int:
    """Ask the cluster."""
    return ask(_options())


def ask(options: argparse.ArgumentParser) -> int:
    """Have the cluster do what the command line says."""
    given = {name: str(value) for name, value in vars(options.parse_args()).items()}
    url = os.environ["GAMEDAY_CLUSTER"] + "?" + urllib.parse.urlencode(given)
    with urllib.request.urlopen(url, timeout=60) as answer:
        said = json.load(answer)
    print(said["out"])
    return int(said["code"])


if __name__ == "__main__":
    sys.exit(main())
