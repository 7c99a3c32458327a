"""The invalidator as `invalidator run` starts it, and a file that says which of its threads is which.

`python -m tests.bench._daemon CONFIG THREADS`: a benchmark asks the kernel what each thread has used.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

from invalidator.config import load
from invalidator.daemon import Daemon, rest_the_collector


def _tell(path: Path, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(names))
        fresh.rename(path)
        if len(names) > 4:
            time.sleep(1.0)


def main() -> None:
    """Until SIGTERM."""
    config, threads, stop = Path(sys.argv[1]), Path(sys.argv[2]), threading.Event()
    daemon = Daemon(lambda: load(config, {}, {}))
    signal.signal(signal.SIGTERM, lambda *_: daemon.service.stop())
    with daemon:
        threading.Thread(target=_tell, args=(threads, stop), name="tells", daemon=True).start()
        rest_the_collector()
        daemon.service.run()
    stop.set()


if __name__ == "__main__":
    main()
