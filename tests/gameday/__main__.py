"""`python -m tests.gameday [--backend redis] [--only "store slow"] [--short]`, which is `make gameday`.

The last line is the verdict; the timelines are in build/gameday.md. GAMEDAY_FACTOR: how much faster than life (20).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.gameday.programme import ALL, SHORT
from tests.gameday.report import write
from tests.gameday.series import side_by_side

FACTOR = 20.0
REPORT = Path("build") / "gameday.md"


def main() -> int:
    """From the command line."""
    options = argparse.ArgumentParser(prog="gameday", description=__doc__)
    options.add_argument("--backend", choices=["redis", "memcached", "both"], default="both")
    options.add_argument("--only", action="append", help="an incident's name; may be given again")
    options.add_argument("--short", action="store_true", help="two incidents, without Kafka")
    options.add_argument("--report", type=Path, default=REPORT)
    given = options.parse_args()
    backends = ["redis", "memcached"] if given.backend == "both" else [given.backend]
    chosen = [one for one in (SHORT if given.short else ALL) if not given.only or one.name in given.only]
    factor = float(os.environ.get("GAMEDAY_FACTOR", FACTOR))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gameday-", ignore_cleanup_errors=True) as temporary:
        folder = Path(os.environ.get("GAMEDAY_FOLDER") or temporary)
        results = side_by_side(backends, chosen, factor, short=given.short, folder=folder)
    write(results, given.report, factor, time.monotonic() - began)
    missed = [one for one in results if one.failed]
    verdict = (
        f"{len(results) - len(missed)} of {len(results)} incidents: alert in time, others silent, ended by the runbook"
    )
    print(f"{'FAILED' if missed else 'OK'}: {verdict}; timelines in {given.report}")
    return 1 if missed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
