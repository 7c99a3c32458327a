"""What the Containerfile says, and its build stage done in a folder: no container engine is needed for that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.charts.generate import CHART

ROOT = CHART.parents[1]
CONTAINERFILE = ROOT / "Containerfile"
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def steps() -> list[tuple[str, str]]:
    """Instruction and arguments, with lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", CONTAINERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def stages() -> list[list[tuple[str, str]]]:
    """The same, stage by stage."""
    found: list[list[tuple[str, str]]] = []
    for step in steps():
        if step[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


@dataclass(frozen=True)
class Image:
    """A build stage that was done under `root`: its absolute paths begin there."""

    root: Path

    def program(self, name: str) -> Path:
        """One of its entry points."""
        return self.root / "opt" / "leasecache" / "bin" / name

    def environment(self) -> dict[str, str]:
        """What the last stage sets, and nothing of ours."""
        found = {"HOME": str(self.root), "LANG": "C.UTF-8"}
        for what, given in stages()[-1]:
            if what == "ENV":
                found |= dict(pair.split("=", 1) for pair in given.split())
        found["PATH"] = found["PATH"].replace("$PATH", os.environ["PATH"])
        return {name: self.inside(value) for name, value in found.items()}

    def inside(self, text: str) -> str:
        """A text whose absolute paths are the image's, with those here."""
        return re.sub(r"(?<![\w/.])/(src|opt|wheels|app|etc/invalidator)\b", rf"{self.root}/\1", text)


def build(root: Path) -> Image:
    """Do the first stage's steps, as they are written, under `root`."""
    image = Image(root)
    environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    folder = root
    for what, given in stages()[0]:
        if what == "ENV":
            # Where packages come from, and what of them is kept, is this machine's business.
            pairs = dict(pair.split("=", 1) for pair in image.inside(given).split())
            environment |= {name: value for name, value in pairs.items() if name != "PIP_NO_CACHE_DIR"}
        elif what == "ARG":
            environment |= dict([given.split("=", 1)])
        elif what == "WORKDIR":
            folder = Path(image.inside(given))
            folder.mkdir(parents=True)
        elif what == "COPY":
            *sources, target = given.split()
            for source in sources:
                into = folder / target / Path(source).name if target.endswith("/") else folder / target
                into.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, ignore=_LEFT_BEHIND)
                else:
                    shutil.copy(ROOT / source, (folder / target / Path(source).name) if target in ("./", ".") else into)
        elif what == "RUN":
            command = ["sh", "-euc", image.inside(given)]
            run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert run.returncode == 0, f"{given}\n{run.stdout}{run.stderr}"
    return image
