"""One picture: axes, lines, points, rules and bands, as inline SVG.

Colours are classes that the page's style sheet gives meaning to, in light, dark and print; each series also
has its own dash, so that a copy on grey paper can be read. Hovering is left to `<title>`: no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Literal, TypeAlias

from loadgen.page.scale import Scale, Words, plain, spread

Point: TypeAlias = tuple[float, float]
Shape: TypeAlias = Literal["disc", "ring", "cross"]
SERIES = 6
"""So many have colours of their own."""
LABEL_APART = 14.0
TICKS_APART = 18.0
"""At least, so that their words do not stand on each other."""
CHAR = 6.6
"""About the width of a letter at the size of labels, to keep them within the picture."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn along one side."""

    name: str
    scale: Scale
    words: Words = plain


@dataclass(slots=True)
class Plot:
    """Fill it, then take `svg()`. `name` and `says` are what a screen reader tells."""

    name: str
    says: str
    x: Axis
    y: Axis
    width: int = 760
    height: int = 300
    right: int = 128
    """Room for the names of the lines."""
    _under: list[str] = field(default_factory=list)
    _over: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    """Words within the picture: above all lines, or these would strike them out."""
    _labels: list[tuple[float, str, int]] = field(default_factory=list)

    LEFT = 64
    TOP = 30
    BOTTOM = 42

    # --- places ----------------------------------------------------------------------------------

    @property
    def _x_end(self) -> float:
        return self.width - self.right

    @property
    def _y_end(self) -> float:
        return self.height - self.BOTTOM

    def at_x(self, value: float) -> float:
        """Where a value stands, in units of the picture."""
        return round(self.LEFT + self.x.scale.share(value) * (self._x_end - self.LEFT), 1)

    def at_y(self, value: float) -> float:
        """See `at_x`; upwards."""
        return round(self._y_end - self.y.scale.share(value) * (self._y_end - self.TOP), 1)

    # --- what is in it -----------------------------------------------------------------------------

    def line(self, points: Sequence[Point], series: int, label: str = "", *, stepped: bool = False) -> None:
        """Through the points in order; `label` stands at its end."""
        if not points:
            return
        places = [(self.at_x(x), self.at_y(y)) for x, y in points]
        if stepped:
            places = [one for before, after in pairwise(places) for one in (before, (after[0], before[1]))]
            places.append((self.at_x(points[-1][0]), self.at_y(points[-1][1])))
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        self._over.append(f'<path class="line s{series % SERIES}" d="{path}"/>')
        if label:
            self._labels.append((places[-1][1], label, series))

    def area(self, points: Sequence[Point], series: int) -> None:
        """Between the points and the axis."""
        if not points:
            return
        path = "L".join(f"{self.at_x(x):g} {self.at_y(y):g}" for x, y in points)
        first, last = self.at_x(points[0][0]), self.at_x(points[-1][0])
        path = f"M{first:g} {self._y_end:g}L{path}L{last:g} {self._y_end:g}Z"
        self._under.append(f'<path class="area s{series % SERIES}" d="{path}"/>')

    def mark(self, point: Point, series: int, shape: Shape = "disc", title: str = "") -> None:
        """One point; `title` is told when the pointer rests on it."""
        x, y = self.at_x(point[0]), self.at_y(point[1])
        told = f"<title>{escape(title)}</title>" if title else ""
        if shape == "cross":
            path = f"M{x - 4:g} {y - 4:g}l8 8M{x - 4:g} {y + 4:g}l8 -8"
            self._over.append(f'<path class="cross s{series % SERIES}" d="{path}">{told}</path>')
        else:
            self._over.append(f'<circle class="{shape} s{series % SERIES}" cx="{x:g}" cy="{y:g}" r="4">{told}</circle>')

    def rule(self, value: float, text: str, *, kind: str = "bound") -> None:
        """A level line across the picture."""
        y = self.at_y(value)
        self._over.append(f'<path class="rule {kind}" d="M{self.LEFT} {y:g}H{self._x_end:g}"/>')
        self._notes.append(f'<text class="note {kind}" x="{self.LEFT + 6}" y="{y - 5:g}">{escape(text)}</text>')

    def upright(self, value: float, text: str, *, kind: str = "fault", title: str = "", row: int = 0) -> None:
        """An upright line; its text stands at the top, on the side where there is room; `row` keeps two apart."""
        x, top = self.at_x(value), self.TOP + 12 + 13 * row
        told = f"<title>{escape(title or text)}</title>"
        self._over.append(f'<path class="rule {kind}" d="M{x:g} {self.TOP}V{self._y_end:g}">{told}</path>')
        left = x + 5 + CHAR * len(text) > self._x_end
        side = f'x="{x - 5:g}" text-anchor="end"' if left else f'x="{x + 5:g}"'
        self._notes.append(f'<text class="note {kind}" {side} y="{top}">{escape(text)}</text>')

    def band(self, start: float, end: float, title: str, *, kind: str = "fault") -> None:
        """A time, from the top to the bottom."""
        x, width = self.at_x(start), max(1.5, self.at_x(end) - self.at_x(start))
        height = self._y_end - self.TOP
        self._under.append(
            f'<rect class="band {kind}" x="{x:g}" y="{self.TOP}" width="{width:g}" height="{height:g}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def hover(self, start: float, end: float, title: str) -> None:
        """An invisible column that tells its values."""
        x, width = self.at_x(start), self.at_x(end) - self.at_x(start)
        self._over.append(
            f'<rect class="hover" x="{x:g}" y="{self.TOP}" width="{width:g}" height="{self._y_end - self.TOP:g}">'
            f"<title>{escape(title)}</title></rect>"
        )

    # --- all of it -----------------------------------------------------------------------------------

    def svg(self) -> str:
        """As it stands in the page."""
        told = f"{self.name}. {self.says}"
        parts = [*self._axes(), *self._under, *self._over, *self._notes, *self._ends()]
        return (
            f'<svg role="img" viewBox="0 0 {self.width} {self.height}" aria-label="{escape(told)}">'
            + "".join(parts)
            + "</svg>"
        )

    def _axes(self) -> list[str]:
        parts = [f'<text class="name" x="{self.LEFT - 56}" y="16">{escape(self.y.name)}</text>']
        for value in self.y.scale.ticks(crowd=round((self._y_end - self.TOP) / TICKS_APART)):
            y = self.at_y(value)
            parts.append(f'<path class="grid" d="M{self.LEFT} {y:g}H{self._x_end:g}"/>')
            words = escape(self.y.words(value))
            parts.append(f'<text class="tick" x="{self.LEFT - 8}" y="{y + 4:g}" text-anchor="end">{words}</text>')
        for value in self.x.scale.ticks(8):
            x = self.at_x(value)
            parts.append(f'<path class="grid" d="M{x:g} {self._y_end:g}v5"/>')
            words = escape(self.x.words(value))
            parts.append(f'<text class="tick" x="{x:g}" y="{self._y_end + 18:g}" text-anchor="middle">{words}</text>')
        parts.append(f'<path class="axis" d="M{self.LEFT} {self._y_end:g}H{self._x_end:g}"/>')
        name = escape(self.x.name)
        parts.append(f'<text class="name" x="{self._x_end:g}" y="{self.height - 6}" text-anchor="end">{name}</text>')
        return parts

    def _ends(self) -> list[str]:
        places = spread([y for y, _, _ in self._labels], LABEL_APART, self.TOP + 4, self._y_end)
        return [
            f'<text class="label s{series % SERIES}" x="{self._x_end + 8:g}" y="{y + 4:g}">{escape(label)}</text>'
            for (_, label, series), y in zip(self._labels, places, strict=True)
        ]
