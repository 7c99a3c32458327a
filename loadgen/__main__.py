"""`loadgen …` and `python -m loadgen …`."""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich", "numpy", "hdrh", "psutil")


def main() -> None:
    """Run the command line; where its extra is not installed that is one sentence."""
    try:
        from loadgen.cli.root import cli
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRA:
            raise
        sys.exit(f"loadgen needs {missing.name}: pip install 'leasecache[loadgen]'")
    cli(prog_name="loadgen")


if __name__ == "__main__":
    main()
