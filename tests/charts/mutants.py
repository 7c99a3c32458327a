"""Every branch of the chart's templates, taken the wrong way: what the suites must notice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BRANCH = re.compile(
    r"\{\{-? *(?P<word>else if|if|with|range) +(?P<vars>(?:\$\w+, *)?\$\w+ *:= *)?(?P<what>.*?) *-?\}\}"
)
_NEVER = {"if": "false", "else if": "false", "with": "false", "range": "list"}


@dataclass(frozen=True)
class Mutant:
    """One branch of one template, another way."""

    file: str
    line: int
    was: str
    text: str
    """All of the file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.was}"


def mutants(templates: Path) -> Iterator[Mutant]:
    """Each condition never true, and each `if` always true."""
    for path in sorted(one for one in templates.rglob("*") if one.is_file()):
        text = path.read_text()
        for found in _BRANCH.finditer(text):
            word = found["word"]
            for instead in [_NEVER[word], *(["true"] if "if" in word else [])]:
                start, end = found.span("what")
                yield Mutant(
                    str(path.relative_to(templates)),
                    text.count("\n", 0, start) + 1,
                    f"{found[0]} -> {instead}",
                    text[:start] + instead + text[end:],
                )
