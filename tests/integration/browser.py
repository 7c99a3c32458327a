"""Headless Chromium: what a page becomes, and what it says on its console."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile

from tests.servers.missing import require


def browser() -> str:
    """Its program; without one the test skips, or fails where CI is set."""
    others = filter(None, map(shutil.which, ("chromium-browser", "google-chrome")))
    return next(others, None) or str(require("chromium"))


def look(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Open the page, wait until it has asked what it asks for, and do what the further flags say."""
    with tempfile.TemporaryDirectory() as home:
        line = [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        line += [f"--user-data-dir={home}", "--no-first-run", "--disable-background-networking", "--no-proxy-server"]
        line += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--window-size=1200,900"]
        return subprocess.run([*line, *more, url], capture_output=True, text=True, timeout=90, check=False)


def console(seen: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page itself wrote on its console; Chromium's own complaints about its surroundings left out."""
    return re.findall(r"INFO:CONSOLE.*|.*Content Security Policy.*|.*Uncaught.*", seen.stderr)
