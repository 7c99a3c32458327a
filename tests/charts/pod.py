"""A pod that the chart renders, as a local process: its command, environment, files and probes are those rendered.
Only mount points are moved: a folder stands for the container's root.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self

from tests.integration.invalidator_daemon import until
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
# The kernel kills a child when the thread that started it ends: all are started from one that stays.
_starter = ThreadPoolExecutor(1, thread_name_prefix="pods")


class Image(Protocol):
    """Where a pod's programs come from."""

    def program(self, name: str) -> Path:
        """One of its entry points."""

    def environment(self) -> dict[str, str]:
        """What it sets."""


class Tree:
    """The working tree in place of an image that was built: quick, and what is being worked on."""

    packages = ("cachelib", "invalidator", "loadgen")

    def program(self, name: str) -> Path:
        """That of the virtual environment."""
        return Path(sys.executable).parent / name

    def environment(self) -> dict[str, str]:
        """The least that a program needs."""
        return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", "HOME": "/tmp"}


class Pod:
    """One pod of a workload. `files`: what its ConfigMaps and Secrets hold, by the object's name and the key."""

    def __init__(
        self, image: Image, root: Path, spec: Mapping[str, Any], files: Mapping[str, Mapping[str, str]], name: str
    ) -> None:
        self.image, self.root, self.name = image, root, name
        self.container: dict[str, Any] = spec["containers"][0]
        self.port = free_port()
        self.log_file = root / "log"
        self.process: subprocess.Popen[bytes] | None = None
        (root / "app").mkdir(parents=True, exist_ok=True)
        (root / "tmp").mkdir(exist_ok=True)
        if isinstance(image, Tree):
            for package in Tree.packages:
                (root / "app" / package).symlink_to(ROOT / package)
        contents: dict[str, dict[str, str]] = {}
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                contents[volume["name"]] = dict(files[volume["configMap"]["name"]])
            elif "secret" in volume:
                held = files[volume["secret"]["secretName"]]
                contents[volume["name"]] = {item["path"]: held[item["key"]] for item in volume["secret"]["items"]}
        for mount in self.container.get("volumeMounts", []):
            self._mount(mount, contents.get(mount["name"], {}))

    def _mount(self, mount: Mapping[str, Any], held: Mapping[str, str]) -> None:
        path = self.root / mount["mountPath"].lstrip("/")
        files = (
            {path: held[mount["subPath"]]} if "subPath" in mount else {path / name: text for name, text in held.items()}
        )
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.moved(text))
            file.chmod(0o440)

    def moved(self, text: str) -> str:
        """A text in which the container's root is the folder, and its port a free one."""
        text = re.sub(r"(?<![\w/.])/(etc/invalidator|app|tmp/letters)\b", rf"{self.root}/\1", text)
        return text.replace("port = 8625", f"port = {self.port}").replace(":8625/", f":{self.port}/")

    def environment(self) -> dict[str, str]:
        """The image's, and over it the container's."""
        fields = {"metadata.name": self.name}
        own = {
            it["name"]: it["value"] if "value" in it else fields[it["valueFrom"]["fieldRef"]["fieldPath"]]
            for it in self.container.get("env", [])
        }
        return {**self.image.environment(), "PYTHONPATH": str(self.root / "app"), **own}

    def command(self) -> list[str]:
        """The container's."""
        program, *rest = self.container["command"]
        return [str(self.image.program(program)), *map(self.moved, rest)]

    def shell(self, text: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec … -- sh -c`."""
        return subprocess.run(
            ["sh", "-c", self.moved(text)],
            cwd=self.root / "app",
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    # --- life --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Run its command."""
        self.process = _starter.submit(self._popen).result()
        return self

    def _popen(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *self.command()],
                cwd=self.root / "app",
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        """The process is there."""
        return self.process is not None and self.process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """What it answers, 0 where it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        """`/status`."""
        return dict(json.loads(self.get("/status")[1]))

    def probe(self, name: str) -> int:
        """What a probe is told."""
        return self.get(self.container[name]["httpGet"]["path"])[0]

    def ready(self) -> Self:
        """Wait until the readiness probe says so."""

        def answers() -> bool:
            assert self.running, self.log_file.read_text()
            return self.probe("readinessProbe") == 200

        until(answers, 60)
        return self

    def stop(self) -> tuple[int, float]:
        """SIGTERM, as the kubelet does: the exit code and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def files_of(found: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What the ConfigMaps among rendered objects hold."""
    return {it["metadata"]["name"]: it["data"] for it in found if it["kind"] == "ConfigMap"}
