"""A page of the runbook, as a person reads it: the first commands, and the actions, word for word."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.charts.generate import CHART

# What a reader fills in, by the runbook's own words.
FILLED_IN = {"ENTITY": "customers", "TABLE:KEY": "customers:id", "TABLE": "customers", "KEY": "7"}
OWN_SHELL = ("kubectl", "helm")


@dataclass(frozen=True)
class Page:
    """`alert`'s page."""

    alert: str

    @property
    def text(self) -> str:
        """All of it."""
        return (CHART / "runbooks" / f"{self.alert}.md").read_text()

    def section(self, head: str) -> str:
        """What stands under a heading."""
        match = re.search(rf"^## {head}\n(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert match, f"{self.alert} has no section {head}"
        return match[1]

    def first(self) -> list[str]:
        """The lines of the first command."""
        return [line for block in re.findall(r"```sh\n(.*?)```", self.section("First command"), re.DOTALL)
                for line in block.splitlines()]  # fmt: skip

    def action(self, part: str) -> str:
        """The command of the decision tree or of what to do that begins so, with what a reader fills in."""
        sections = self.section("Lag, drop or race") + self.section("What to do")
        found = [one for one in re.findall(r"`([^`]+)`", sections) if one.startswith(part)]
        assert found, f"the page of {self.alert} names no command {part!r}"
        return filled_in(found[0])

    def says(self, words: str) -> str:
        """A sentence that the page has: what the person does follows from it."""
        assert words in " ".join(self.text.split()), f"the page of {self.alert} does not say {words!r}"
        return words


def filled_in(command: str, **own: str) -> str:
    """With the reader's own names; `own` are those of this incident, such as ENTITY="boards"."""
    for word, value in (FILLED_IN | own).items():
        command = re.sub(rf"\b{word}\b", value, command)
    return command


def in_own_shell(command: str) -> bool:
    """Whether it is typed at home and not in the pod."""
    return command.split(maxsplit=1)[0] in OWN_SHELL
