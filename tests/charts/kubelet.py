"""A node of Kubernetes whose containers are local processes: it takes the pods that the scheduler gives it.

Of each pod it reads ConfigMaps and Secrets from the API server, runs the command with its environment and files, asks
the probes, says what it found in the pod's status, starts again what ended, and stops what is deleted. One container a
pod is run (and all of one that ends by itself, such as a release's test); volumes are ConfigMaps, Secrets and folders.
"""

from __future__ import annotations

import base64
import threading
import time
import urllib.error
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tests.charts.pod import Image, Pod
from tests.servers.kubernetes import ApiServer

NODE = "local"
_EVERY_S = 0.2
_BEAT_S = 8.0
_MERGE = "application/strategic-merge-patch+json"


@dataclass
class Run:
    """A pod that is here."""

    pods: list[Pod]
    given: dict[str, Any]
    restarts: int = 0
    said: str = ""
    ending: bool = False


class Kubelet:
    """`with Kubelet(api, image, folder):`; `runs` are its pods by namespace and name."""

    def __init__(self, api: ApiServer, image: Image, folder: Path) -> None:
        self._api, self._image, self._folder = api, image, folder
        self.runs: dict[tuple[str, str], Run] = {}
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._beaten_s = 0.0

    def __enter__(self) -> Self:
        self._api.request("POST", "/api/v1/nodes", {"kind": "Node", "metadata": {"name": NODE}})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for run in self.runs.values():
            for pod in run.pods:
                pod.kill()

    def _loop(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self._beat()
                self._look()
            except urllib.error.HTTPError as error:
                with error:
                    self.errors.append(f"{error} {error.url} {error.read()[:500]!r}")
            except OSError as error:
                self.errors.append(str(error))

    def _beat(self) -> None:
        """The node is well; without this its pods would be taken away."""
        if time.monotonic() - self._beaten_s < _BEAT_S:
            return
        self._beaten_s = time.monotonic()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        room = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
        status = {"conditions": [ready], "capacity": room, "allocatable": room}
        self._api.request("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, content=_MERGE)

    def _look(self) -> None:
        found = self._api.request("GET", f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}")["items"]
        here = {(it["metadata"]["namespace"], it["metadata"]["name"]): it for it in found}
        for at in self.runs.keys() - here.keys():  # deleted by force
            for pod in self.runs.pop(at).pods:
                pod.kill()
        for at, given in here.items():
            run = self.runs.get(at)
            if run is not None and run.given["metadata"]["uid"] != given["metadata"]["uid"]:
                for pod in run.pods:
                    pod.kill()
                run = None
            if run is None:
                self.runs[at] = run = Run(self._make(given), given)
                if given["spec"].get("restartPolicy") != "Never":
                    run.pods[0].start()
            if "deletionTimestamp" in given["metadata"]:
                self._end(at, given, run)
            elif given["spec"].get("restartPolicy") == "Never":
                self._once(at, given, run)
            else:
                self._tend(at, given, run)

    # --- a pod -------------------------------------------------------------------------------

    def _make(self, given: Mapping[str, Any]) -> list[Pod]:
        meta, spec = given["metadata"], given["spec"]
        files = {name: self._files(meta["namespace"], kind, name) for kind, name in _needed(spec)}
        root = self._folder / f"{meta['namespace']}.{meta['name']}.{meta['uid'][:8]}"
        containers = spec["containers"] if spec.get("restartPolicy") == "Never" else spec["containers"][:1]
        return [
            Pod(self._image, root / one["name"], {**spec, "containers": [one]}, files, meta["name"])
            for one in containers
        ]

    def _files(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        found = self._api.request("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")["data"]
        if kind == "secrets":
            return {key: base64.b64decode(value).decode() for key, value in found.items()}
        return dict(found)

    def _tend(self, at: tuple[str, str], given: dict[str, Any], run: Run) -> None:
        (pod,) = run.pods
        if not pod.running:
            run.restarts += 1
            time.sleep(min(0.5 * run.restarts, 2.0))
            pod.start()
        ready = pod.probe("readinessProbe") == 200
        self._say(at, given, run, "Running", ready=ready)

    def _once(self, at: tuple[str, str], given: dict[str, Any], run: Run) -> None:
        """All containers, one after the other, to their ends."""
        if run.said:
            return
        codes = []
        for pod in run.pods:
            pod.container["command"] = [self._reached(at[0], part) for part in pod.container["command"]]
            pod.start()
            assert pod.process is not None
            codes.append(pod.process.wait(60))
        self._say(at, given, run, "Failed" if any(codes) else "Succeeded", ready=False)

    def _reached(self, namespace: str, text: str) -> str:
        """An address of a Service, as that of a pod behind it: there is no cluster network."""
        for (where, name), run in self.runs.items():
            service = f"http://{name.rpartition('-')[0]}.{namespace}.svc:8625/"
            if where == namespace and service in text:
                return text.replace(service, f"http://127.0.0.1:{run.pods[0].port}/")
        return text

    def _end(self, at: tuple[str, str], given: dict[str, Any], run: Run) -> None:
        for pod in run.pods:
            if pod.running:
                pod.stop()
        self._say(at, given, run, "Running", ready=False)
        path = f"/api/v1/namespaces/{at[0]}/pods/{at[1]}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": given["metadata"]["uid"]}}
        with suppress(urllib.error.HTTPError):  # gone already
            self._api.request("DELETE", path, body)
        del self.runs[at]

    def _say(self, at: tuple[str, str], given: dict[str, Any], run: Run, phase: str, *, ready: bool) -> None:
        said = f"{phase} {ready} {run.restarts}"
        if said == run.said:
            return
        run.said = said
        is_true = "True" if ready else "False"
        state = {"running": {"startedAt": _now()}}
        if phase in ("Succeeded", "Failed"):
            state = {"terminated": {"exitCode": int(phase == "Failed"), "finishedAt": _now()}}  # type: ignore[dict-item]
        containers = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": ready,
                "started": True,
                "restartCount": run.restarts,
                "state": state,
            }
            for one in given["spec"]["containers"]
        ]
        conditions = [
            {
                "type": kind,
                "status": is_true if kind in ("Ready", "ContainersReady") else "True",
                "lastTransitionTime": _now(),
            }
            for kind in ("Initialized", "PodScheduled", "ContainersReady", "Ready")
        ]
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "startTime": _now(),
            "conditions": conditions,
            "containerStatuses": containers,
        }
        path = f"/api/v1/namespaces/{at[0]}/pods/{at[1]}/status"
        self._api.request("PATCH", path, {"status": status}, content=_MERGE)


def _needed(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for volume in spec["volumes"]:
        if "configMap" in volume:
            found.append(("configmaps", volume["configMap"]["name"]))
        elif "secret" in volume:
            found.append(("secrets", volume["secret"]["secretName"]))
    return found


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
