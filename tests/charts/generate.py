"""`python -m tests.charts.generate` writes what follows from values.yaml and the daemon's settings.

That is values.schema.json and the table of values in the chart's README. A test fails where they are not up to date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from invalidator.config import listing
from invalidator.settings import Settings

CHART = Path(__file__).parents[2] / "charts" / "invalidator"
BEGIN, END = "<!-- values -->", "<!-- /values -->"

_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}
_TEXT_MAP: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_ANY: dict[str, Any] = {"type": "object"}
_ANYS: dict[str, Any] = {"type": "array", "items": _ANY}
_DURATION: dict[str, Any] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(ms|s|m|h|d)$"}
_PORT: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 65535}
_PROBE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": dict.fromkeys(
        ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"), _WHOLE
    ),
}
_NO_PASSWORD = r"^[a-z+]+://([^:@/]*@)?[^@]*$"

# What the type of a default does not say. Names of values, with dots.
RULES: dict[str, dict[str, Any]] = {
    "commonLabels": _TEXT_MAP,
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": _TEXTS,
    "kind": {"enum": ["StatefulSet", "Deployment"]},
    "replicas": _WHOLE,
    "modules": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {r"^[a-z_][a-z0-9_]*\.py$": {"type": "string"}},
    },
    "relay.resources": _ANY,
    "verifier.resources": _ANY,
    "resources": _ANY,
    "podSecurityContext": _ANY,
    "securityContext": _ANY,
    "serviceAccount.annotations": _TEXT_MAP,
    "probes.startup": _PROBE,
    "probes.liveness": _PROBE,
    "probes.readiness": _PROBE,
    "preStopSeconds": {"type": "integer", "minimum": 0, "maximum": 300},
    "terminationGracePeriodSeconds": _WHOLE,
    "maxUnavailable": {"anyOf": [_WHOLE, {"type": "string", "pattern": "^[0-9]+%$"}]},
    "pdb.maxUnavailable": {"anyOf": [_WHOLE, {"type": "string", "pattern": "^[0-9]+%$"}]},
    "autoscaling.kind": {"enum": ["none", "hpa", "keda"]},
    "autoscaling.minReplicas": _WHOLE,
    "autoscaling.maxReplicas": _WHOLE,
    "autoscaling.targetLagSeconds": _WHOLE,
    "autoscaling.scaleDownStabilizationSeconds": {"type": "integer", "minimum": 300, "maximum": 3600},
    "autoscaling.scaleDownPeriodSeconds": {"type": "integer", "minimum": 60, "maximum": 1800},
    "autoscaling.keda.pollingInterval": _WHOLE,
    "autoscaling.keda.fallbackReplicas": _WHOLE,
    "service.annotations": _TEXT_MAP,
    "networkPolicy.ingressFrom": _ANYS,
    "networkPolicy.egressPorts": {"type": "array", "items": _PORT, "minItems": 1},
    "networkPolicy.egress": _ANYS,
    "prometheusRule.labels": _TEXT_MAP,
    "prometheusRule.alertLabels": _TEXT_MAP,
    "prometheusRule.disabled": _TEXTS,
    "prometheusRule.overrides": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "for": {"type": "string", "pattern": "^[0-9]+(s|m|h|d)$"},
                "severity": {"enum": ["page", "ticket", "info"]},
                "expr": {"type": "string", "minLength": 1},
            },
        },
    },
    "prometheusRule.extraGroups": _ANYS,
    "dashboards.labels": _TEXT_MAP,
    "dashboards.annotations": _TEXT_MAP,
    "annotations": _TEXT_MAP,
    "podLabels": _TEXT_MAP,
    "podAnnotations": _TEXT_MAP,
    "nodeSelector": _TEXT_MAP,
    "tolerations": _ANYS,
    "affinity": _ANY,
    "topologySpreadConstraints": _ANYS,
    "extraEnv": _ANYS,
    "extraEnvFrom": _ANYS,
    "extraVolumes": _ANYS,
    "extraVolumeMounts": _ANYS,
    "extraInitContainers": _ANYS,
    "extraContainers": _ANYS,
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    **{
        f"{kind}Monitor.{name}": rule
        for kind in ("service", "pod")
        for name, rule in {
            "labels": _TEXT_MAP,
            "interval": _DURATION,
            "scrapeTimeout": _DURATION,
            "relabelings": _ANYS,
        }.items()
    },
}

# Settings that are no business of the values: the chart sets them itself, or they are secrets and live in one.
NOT_IN_CONFIG = {
    "http.host", "caches_file", "store.url_file", "kafka.password", "kafka.password_file",
    "kafka.ca_file", "kafka.cert_file", "kafka.key_file", "kafka_source.token_file", "kafka_source.instance",
}  # fmt: skip
_RULE_KEYS = ("template", "name", "table", "version", "stale_ttl", "tombstone_ttl")


def values() -> dict[str, Any]:
    """The chart's defaults."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def schema() -> dict[str, Any]:
    """values.schema.json."""
    found = _object(values(), "")
    found["properties"]["config"] = _config()
    found["properties"]["global"] = {
        "type": "object",
        "description": "Handed down by a chart that this one is part of; not read.",
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "invalidator", **found}


def _object(given: dict[str, Any], path: str) -> dict[str, Any]:
    properties = {name: _one(value, f"{path}{name}") for name, value in given.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _one(value: Any, path: str) -> dict[str, Any]:
    if path in RULES:
        return RULES[path]
    if isinstance(value, dict) and value:
        return _object(value, f"{path}.")
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, str):
        return {"type": "string"}
    if path == "config":
        return {}
    raise SystemExit(f"{path} is {value!r}, which tells nothing of its type: add it to RULES")


def _config() -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for dotted, _, doc in listing():
        if dotted in NOT_IN_CONFIG:
            continue
        section, _, name = dotted.rpartition(".")
        rule = {**_setting(dotted), "description": doc}
        if section:
            into = sections.setdefault(section, {"type": "object", "additionalProperties": False, "properties": {}})
            into["properties"][name] = rule
        else:
            sections[name] = rule
    return {"type": "object", "additionalProperties": False, "properties": sections}


def _setting(dotted: str) -> dict[str, Any]:
    section, _, name = dotted.rpartition(".")
    holder = getattr(Settings(), section) if section else Settings()
    fields = {one.name.removesuffix("_s"): one for one in type(holder).__dataclass_fields__.values()}
    one = fields[name]
    default, rules = getattr(holder, one.name), one.metadata
    if dotted == "rules":
        texts = {key: {"type": "string"} for key in _RULE_KEYS}
        more = {"key": {"type": ["string", "array"]}, "depends_on": {"type": "object"}}
        return {
            "type": "array",
            "items": {"type": "object", "additionalProperties": False, "properties": {**texts, **more}},
        }
    if dotted == "caches":
        return {"type": "array", "items": {"type": "string", "pattern": _NO_PASSWORD}}
    if dotted == "store.url":
        return {"type": "string", "pattern": _NO_PASSWORD}
    if dotted == "http.port":
        return _PORT
    if "text" in rules:
        return _DURATION
    if isinstance(default, tuple):
        return _TEXTS
    if isinstance(default, int):
        least, most = rules["range"]
        return {"type": "integer", "minimum": least, "maximum": most}
    return {"enum": list(rules["among"])} if rules.get("among") else {"type": "string"}


def table() -> str:
    """The table of values for the README."""
    given = values()
    rows = ["| value | what it is | default |", "|---|---|---|"]
    for path, doc in described().items():
        value: Any = given
        for part in path.split("."):
            value = value[part]
        shown = json.dumps(value)
        rows.append(f"| `{path}` | {doc} | {f'`{shown}`' if len(shown) < 70 else 'see values.yaml'} |")
    return "\n".join(rows)


def described() -> dict[str, str]:
    """Every value with a comment, in the order of values.yaml."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    doc = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if comment := re.match(r"\s*# -- (.*)", line):
            doc = comment[1]
        elif name := re.match(r"( *)([A-Za-z]+):", line):
            depth = len(name[1])
            path = [*((at, part) for at, part in path if at < depth), (depth, name[2])]
            if doc:
                found[".".join(part for _, part in path)] = doc
            doc = ""
    return found


def readme(text: str) -> str:
    """The README with the table as it must be."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write both."""
    (CHART / "values.schema.json").write_text(json.dumps(schema(), indent=2) + "\n")
    (CHART / "README.md").write_text(readme((CHART / "README.md").read_text()))


if __name__ == "__main__":
    main()
