"""Work in several threads, at a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

THREADS = 8


def paced(rate: float, seconds: float) -> Iterator[None]:
    """Turns at a rate, by a schedule: who is late catches up."""
    began_s = time.monotonic()
    for turn in range(int(rate * seconds)):
        time.sleep(max(0.0, began_s + turn / rate - time.monotonic()))
        yield


def in_threads(work: Callable[[int], None]) -> None:
    """Do it in all threads; raises what one of them raised."""
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told to who waits
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
