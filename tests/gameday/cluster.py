"""The chart's workload as processes: started, started again when they end, and asked about by `kubectl`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.charts.pod import ROOT, Pod, Tree, files_of
from tests.charts.tools import objects, one

RELEASE, NAMESPACE, NAME = "invalidator", "shop", "invalidator"
_TEND_S = 0.2
_BACK_OFF_S = 2.0


class Cluster:
    """`with Cluster(folder, values, secrets) as cluster:`; the release is `invalidator` in `shop`, as in the runbook.

    A pod whose machine was lost stays as it is until somebody deletes it by force, as Kubernetes does with those of a
    StatefulSet.
    """

    def __init__(self, folder: Path, values: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> None:
        self.folder = folder
        self._secrets = secrets
        self._revisions = [values]
        found = self._render(values)
        self._beside = {
            it["metadata"]["name"]: it["spec"]["template"]["spec"]
            for it in found
            if it["kind"] in ("StatefulSet", "Deployment") and it["metadata"]["name"] != RELEASE
        }
        (rule,) = (it for it in found if it["kind"] == "PrometheusRule")
        self.rules: list[dict[str, Any]] = rule["spec"]["groups"]
        self.replicas: int = values.get("replicas", 2)
        self.pods: dict[str, Pod] = {}
        self.beside: dict[str, Pod] = {}
        """Relay and verifier, where the values have them; nobody tends them."""
        self.visitors: dict[str, Pod] = {}
        """Of another release of the chart in the same namespace."""
        self._lost: set[str] = set()
        self._restarts: dict[str, int] = {}
        self._made = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend, daemon=True)
        self._server = _server(self)

    def _render(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = objects(dict(values), release=RELEASE)
        self._spec = one("StatefulSet", found, RELEASE)["spec"]["template"]["spec"]
        self._files = {**files_of(found), **self._secrets}
        return found

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        (self.folder / "bin").mkdir(parents=True)
        for name in ("kubectl", "helm"):
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.gameday.{name} "$@"\n')
            program.chmod(0o755)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        self._scale()
        for name, spec in self._beside.items():
            self.beside[name] = Pod(Tree(), self.folder / name, spec, self._files, f"{name}-0").start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._server.shutdown()
        self._server.server_close()
        self.end_visitors()
        for pod in [*self.pods.values(), *self.beside.values()]:
            pod.kill()

    def first(self) -> Pod:
        """`invalidator-0`."""
        return self.pods[f"{NAME}-0"]

    def lose_machine(self, name: str) -> None:
        """Its pod is gone, and nobody knows it for certain."""
        with self._lock:
            self._lost.add(name)
            self.pods[name].kill()

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """`helm upgrade`: the daemon's pods end and are made anew, one after the other."""
        self._revisions.append(values)
        self._render(values)
        for name in list(self.pods):
            with self._lock:
                self._end(self.pods[name])
                self.pods[name] = self._new(name)
            self.pods[name].ready()

    def visitor(self, name: str, values: Mapping[str, Any]) -> Pod:
        """Start one, in place of what there was."""
        found = objects(dict(values), release=RELEASE)
        spec = one("StatefulSet", found, RELEASE)["spec"]["template"]["spec"]
        pod = Pod(Tree(), self.folder / name, spec, {**files_of(found), **self._secrets}, name)
        former, self.visitors = self.visitors, {name: pod.start()}
        for other in former.values():
            other.kill()
        return pod

    def end_visitors(self) -> None:
        """Kill them."""
        former, self.visitors = self.visitors, {}
        for other in former.values():
            other.kill()

    def _scale(self) -> None:
        with self._lock:
            for number in range(self.replicas):
                self.pods.setdefault(f"{NAME}-{number}", self._new(f"{NAME}-{number}"))
            for name in [name for name in self.pods if int(name.rpartition("-")[2]) >= self.replicas]:
                self._end(self.pods.pop(name))

    def _new(self, name: str) -> Pod:
        self._made += 1
        return Pod(Tree(), self.folder / f"{name}.{self._made}", self._spec, self._files, name).start()

    def _end(self, pod: Pod) -> None:
        if pod.running:
            pod.stop()

    def _tend(self) -> None:
        while not self._stop.wait(_TEND_S):
            with self._lock:
                for name, pod in self.pods.items():
                    if not pod.running and name not in self._lost:
                        self._restarts[name] = self._restarts.get(name, 0) + 1
                        time.sleep(min(self._restarts[name] * 0.5, _BACK_OFF_S))
                        pod.start()

    # --- a shell -----------------------------------------------------------------------------

    def own_shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """At home, with `kubectl`."""
        host, port = self._server.server_address[:2]
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "GAMEDAY_CLUSTER": f"http://{host!s}:{port}/",
        }
        return subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=90
        )

    def pod_shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """In a pod, as `kubectl -n shop exec -it invalidator-0 -- sh` and the runbook's second line."""
        pod = self.first()
        assert pod.running, "nobody can open a shell in a pod that does not run"
        return pod.shell(f". /etc/invalidator/on-call.sh\n{command}", timeout_s=90)

    # --- what kubectl asks -------------------------------------------------------------------

    def asked(self, verb: str, given: Mapping[str, str]) -> str:
        """Its answer. Raises `KeyError` where there is no such pod."""
        if verb == "get":
            rows = [f"{'NAME':<16}{'READY':<8}{'STATUS':<14}RESTARTS"]
            rows += [self._row(name) for name in self.pods]
            rows += [f"{name:<16}{'1/1':<8}{'Running':<14}0" for name in dict(self.visitors)]
            return "\n".join(rows) if self.pods else f"No resources found in {NAMESPACE} namespace."
        if verb == "scale":
            self.replicas = int(given["replicas"])
            self._scale()
            return f"{given['name']} scaled"
        if verb == "rollback":
            self.upgrade(self._revisions[-2])
            return "Rollback was a success! Happy Helming!"
        name = given["name"]
        if verb == "logs":
            if name in self._lost:
                return "Error from server: the machine does not answer"
            tail = int(given["tail"])
            lines = self.pods[name].log_file.read_text(errors="replace").splitlines()
            return "\n".join(lines[-tail:] if tail > 0 else lines)
        if verb == "describe":
            why = "Warning  NodeNotReady  Node is not ready" if name in self._lost else "Normal  Started"
            return f"Name: {name}\nStatus: {self._row(name).split()[2]}\nEvents:\n  {why}"
        assert verb == "delete", verb
        return self._delete(name, force=given["force"] == "True" and given["grace_period"] == "0")

    def _row(self, name: str) -> str:
        pod = self.pods[name]
        status = "Terminating" if name in self._lost else "Running" if pod.running else "Error"
        ready = int(name not in self._lost and pod.probe("readinessProbe") == 200)
        return f"{name:<16}{f'{ready}/1':<8}{status:<14}{self._restarts.get(name, 0)}"

    def _delete(self, name: str, *, force: bool) -> str:
        with self._lock:
            if name in self._lost and not force:
                return f'pod "{name}" deleted (it stays Terminating: its machine does not answer)'
            self._end(self.pods[name])
            self._lost.discard(name)
            self.pods[name] = self._new(name)
        return f'pod "{name}" {"force " if force else ""}deleted'


def _server(cluster: Cluster) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            try:
                said = {"out": cluster.asked(given["verb"], given), "code": 0}
            except KeyError as error:
                said = {"out": f'Error from server (NotFound): pods "{error.args[0]}" not found', "code": 1}
            body = json.dumps(said).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
