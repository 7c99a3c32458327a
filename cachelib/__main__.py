"""`cachelib …` and `python -m cachelib …`."""

from __future__ import annotations

import sys

from cachelib.errors import CacheError


def main() -> None:
    """Run the command line; an error is one sentence and an exit code."""
    try:
        from cachelib.cli import commands  # click is an extra
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit("cachelib: the command line needs click: pip install 'leasecache[cli]'")
    try:
        commands()
    except CacheError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"cachelib: {error}")


if __name__ == "__main__":
    main()
