"""Certificates for servers that speak TLS, made by openssl: signed by themselves, or by an authority of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers.missing import require

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make one for localhost in `folder`: (the certificate, its key)."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    _openssl(*_KEY, "-x509", *names, "-keyout", key, "-out", certificate)
    return certificate, key


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make an authority and what it signs, for localhost and 127.0.0.1, in `folder`.

    (The authority's certificate, the server's key and certificate in one PEM file).
    """
    ca, ca_key, server, server_key = (folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    # Python's strict check wants the key usage said in so many words.
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(*_KEY, "-x509", "-subj", "/CN=test authority", *authority, "-keyout", ca_key, "-out", ca)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    signed: list[str | Path] = [
        "-CA",
        ca,
        "-CAkey",
        ca_key,
        "-addext",
        names,
        "-addext",
        "basicConstraints=critical,CA:false",
    ]
    _openssl(*_KEY, "-x509", "-subj", "/CN=localhost", *signed, "-keyout", server_key, "-out", server)
    both = folder / "keystore.pem"
    both.write_text(server_key.read_text() + server.read_text())
    return ca, both


def _openssl(*arguments: str | Path) -> None:
    line = [require("openssl"), "req", *arguments]
    made = subprocess.run(line, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"openssl failed: {made.stderr}")
