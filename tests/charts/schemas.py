"""JSON schemas for kubeconform, from what is here: Kubernetes's own out of the `kubernetes-validate` wheel, and those
of CustomResourceDefinitions. Unknown fields are refused, as the API server does under strict validation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

_OWN = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


class _Loader(yaml.SafeLoader):
    """CRDs of the operator have a bare `=` among their enums, which YAML 1.1 takes for a default value."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def write_own(version: str, into: Path) -> None:
    """Those of a Kubernetes version, such as 1.31."""
    for file in (_OWN / f"v{version}.0-local-strict").glob("*.json"):
        schema = json.loads(file.read_text().replace('"/api/_def', '"_def'))
        schema.pop("$schema", None)  # kubeconform would look for that one on the network
        (into / file.name).write_text(json.dumps(schema))


def write_custom(crds: Path, into: Path) -> set[str]:
    """Those of the CustomResourceDefinitions in a folder; their kinds."""
    kinds = set()
    for file in crds.glob("*.yaml"):
        found = yaml.load(file.read_text(), _Loader)["spec"]
        kind = found["names"]["kind"]
        for version in found["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            _strict(schema)
            schema["properties"]["metadata"] = {"type": "object"}
            name = f"{kind.lower()}-{found['group'].partition('.')[0]}-{version['name']}.json"
            (into / name).write_text(json.dumps(schema))
        kinds.add(kind)
    return kinds


def _strict(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(properties := schema.get("properties"), dict):
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for each in properties.values():
            _strict(each)
    for name in ("items", "additionalProperties"):
        _strict(schema.get(name))
