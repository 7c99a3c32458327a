"""A control plane of Kubernetes: etcd, API server, controller manager and scheduler. Without nodes.

The programs are not on any machine; whoever starts it says in which folder they are.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.servers.missing import require
from tests.servers.ports import HOST, free_port
from tests.servers.process import Server, ask

TOKEN = "of-the-tests"
_ADMIN = f"{TOKEN},admin,admin,system:masters\n"
_SERVICES = "10.96.0.0/16"


class Etcd(Server):
    """The store of the API server."""

    name = "etcd"

    def __init__(self, programs: Path) -> None:
        self._program = programs / "etcd"
        super().__init__()
        self._peers = free_port()

    @property
    def url(self) -> str:
        """Of clients."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        peers = f"http://{HOST}:{self._peers}"
        return [
            self._program, "--data-dir", self.folder / "data", "--unsafe-no-fsync",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}",
        ]  # fmt: skip

    def answers(self) -> bool:
        """Healthy, as it says itself."""
        return b'"true"' in ask(self.port, b"GET /health HTTP/1.0\r\n\r\n")


class ApiServer(Server):
    """`request` speaks to it as an administrator; `kubeconfig` lets others do so."""

    name = "kube-apiserver"

    def __init__(self, programs: Path, etcd: Etcd) -> None:
        self._program, self._etcd = programs / self.name, etcd
        super().__init__()
        (self.folder / "tokens.csv").write_text(_ADMIN)
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        for command in (f"genrsa -out {key} 2048", f"rsa -in {key} -pubout -out {public}"):
            subprocess.run([require("openssl"), *command.split()], check=True, capture_output=True)

    @property
    def url(self) -> str:
        """Of its one, secured port."""
        return f"https://{HOST}:{self.port}"

    @property
    def authority(self) -> Path:
        """Its certificate, which it made itself."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and helm."""
        path = self.folder / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        context = {"cluster": "tests", "user": "admin", "namespace": "default"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "contexts": [{"name": "tests", "context": context}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        return [
            self._program, f"--etcd-servers={self._etcd.url}", f"--bind-address={HOST}", f"--advertise-address={HOST}",
            f"--secure-port={self.port}", f"--cert-dir={self.folder / 'certs'}", "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={_SERVICES}", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}", "--authorization-mode=RBAC",
        ]  # fmt: skip

    def answers(self) -> bool:
        """Ready, as it says itself."""
        return self.authority.exists() and self._open("GET", "/readyz", None, "application/json") == b"ok"

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, content: str = "application/json"
    ) -> dict[str, Any]:
        """JSON for JSON. Raises `urllib.error.HTTPError`."""
        data = None if body is None else json.dumps(body).encode()
        found: dict[str, Any] = json.loads(self._open(method, path, data, content))
        return found

    def _open(self, method: str, path: str, data: bytes | None, content: str) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content}
        asked = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        context = ssl.create_default_context(cafile=self.authority)
        # Without proxies: this is a loopback address whatever the environment says.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(asked, timeout=20) as answer:
            said: bytes = answer.read()
            return said


class _Controller(Server):
    """The controller manager, or the scheduler."""

    def __init__(self, programs: Path, api: ApiServer, name: str, *more: str) -> None:
        self.name = name
        self._program, self._api, self._more = programs / name, api, more
        super().__init__()

    @property
    def url(self) -> str:
        """Of its probes."""
        return f"https://{HOST}:{self.port}"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        return [
            self._program, f"--kubeconfig={self._api.kubeconfig}", f"--bind-address={HOST}",
            f"--secure-port={self.port}", "--leader-elect=false", "--authentication-skip-lookup=true",
            f"--cert-dir={self.folder}", *self._more,
        ]  # fmt: skip

    def answers(self) -> bool:
        """Healthy, as it says itself; its certificate is its own."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{self.url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)


class ControlPlane:
    """`with ControlPlane(programs) as plane:`; `plane.api` is its API server."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            # Left in the reverse order: without etcd the API server would wait for it.
            etcd = self._stack.enter_context(Etcd(self._programs))
            self.api = self._stack.enter_context(ApiServer(self._programs, etcd))
            keys = (
                f"--service-account-private-key-file={self.api.folder / 'sa.key'}",
                f"--root-ca-file={self.api.authority}",
            )
            self._stack.enter_context(_Controller(self._programs, self.api, "kube-controller-manager", *keys))
            self._stack.enter_context(_Controller(self._programs, self.api, "kube-scheduler"))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
