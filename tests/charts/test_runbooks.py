"""The runbook: a page for each alert, all alike, whose links lead somewhere and whose commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cachelib.cli import commands as cachelib_commands
from invalidator.__main__ import cli as invalidator_commands
from invalidator.config import listing
from tests.charts.generate import CHART, described
from tests.charts.metrics import DASHBOARDS, GROUPS

BOOKS = CHART / "runbooks"
INDEX = (BOOKS / "README.md").read_text()
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
PAGES = sorted(path for path in BOOKS.glob("*.md") if path.name != "README.md")
SECTIONS = ["What users see", "First command", "Lag, drop or race", "What to do", "It is over when"]
OUR_COMMANDS = {"cachelib": cachelib_commands, "invalidator": invalidator_commands}


def name(path: Path) -> str:
    return path.stem


def test_there_is_a_page_for_each_alert_and_the_index_lists_them() -> None:
    assert {path.stem for path in PAGES} == set(ALERTS)
    for alert, rule in ALERTS.items():
        assert f"| [{alert}]({alert}.md) | {rule['labels']['severity']} | {rule['annotations']['summary']} |" in INDEX


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_page_has_the_same_sections_with_something_in_them(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert f"**{ALERTS[path.stem]['labels']['severity']}** · Fires when " in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^## .*$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", sorted(BOOKS.glob("*.md")), ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        text = (path.parent / file).read_text() if file else path.read_text()
        heads = {
            re.sub(r"[^a-z -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.M)
        }
        assert not anchor or anchor in heads, target


def commands_of(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`((?:cachelib|invalidator) [^`…]*)`", text)
    return [line for block in blocks for line in block.splitlines()] + inline


@pytest.mark.parametrize("path", sorted(BOOKS.glob("*.md")), ids=name)
def test_commands_exist_with_their_options(path: Path) -> None:
    found = commands_of(path.read_text())
    assert found
    for line in found:
        words = shlex.split(line.partition("|")[0])
        if words[0] not in OUR_COMMANDS:
            assert words[0] in ("kubectl", "page", "date", "."), line
            continue
        group = OUR_COMMANDS[words[0]]
        command = group.commands[words[1]]
        values = [word.replace("$CONFIG", "it.toml") for word in words[2:]]
        with click.Context(group) as parent:
            defaults = ["--store=x"] if words[0] == "cachelib" and words[1] != "doctor" else []
            more = ["--cache=x", "--entities=x"] if words[1] == "explain" else []
            command.make_context(words[1], [*values, *defaults, *more], parent=parent)


@pytest.mark.parametrize("path", sorted(BOOKS.glob("*.md")), ids=name)
def test_settings_values_and_panels_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text()
    settings = {dotted for dotted, _, _ in listing()}
    for dotted in re.findall(
        r"`(?:config\.)?((?:source|apply|kafka|kafka_source|dead_letters|relay)\.[a-z_]+)\b", text
    ):
        assert dotted in settings, dotted
    for dotted in re.findall(r"`((?:prometheusRule|autoscaling|resources)\.[A-Za-z]+)", text):
        assert any(
            value == dotted or value.startswith(f"{dotted}.") or dotted.startswith(f"{value}.") for value in described()
        ), dotted
    titles = {panel["title"] for board in DASHBOARDS.values() for panel in board["panels"]}
    for title in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text):
        assert title in titles, title
