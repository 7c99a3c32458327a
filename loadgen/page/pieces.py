"""The parts of the page that are not pictures: tiles, tables, captions. Everything is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def heading(text: str, lead: str = "") -> str:
    """A question, and what stands under it."""
    return f"<h2>{escape(text)}</h2>" + (f'<p class="soft lead">{escape(lead)}</p>' if lead else "")


def figure(picture: str, caption: str, title: str = "") -> str:
    """A picture (SVG) with what to see in it."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{head}<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Figures that are seen first: the value, and what it is."""
    inside = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in pairs
    )
    return f'<div class="tiles">{inside}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Numbers: the first column names the row."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


def words(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they say."""
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f'<table class="words"><tbody>{lines}</tbody></table>'


def folded(summary: str, inside: str) -> str:
    """What is there for those who ask; not on paper."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """A sentence or two."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
