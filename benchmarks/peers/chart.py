"""The figures as a picture: an SVG of bars, readable on a light page and on a dark one.

No library draws it: the few shapes are text, so the file is small, and a diff of it can be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.report import number
from benchmarks.stacks import OURS

WIDTH, MARGIN, COLUMN_GAP = 880, 16, 32
TITLE_HEIGHT, ROW_HEIGHT, BAR_HEIGHT, PANEL_GAP = 26, 20, 13, 18
NAME_WIDTH, VALUE_WIDTH = 178, 52
COLUMN_WIDTH = (WIDTH - 2 * MARGIN - COLUMN_GAP) // 2
BAR_WIDTH = COLUMN_WIDTH - NAME_WIDTH - VALUE_WIDTH

# An <img> has no page to take its colours from, so it asks what the reader prefers.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ours { font-weight: 600 }
rect { fill: #8c959f }
rect.ours { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #d1d7e0 }
  rect { fill: #656c76 }
  rect.ours { fill: #4493f8 }
}
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of all who have it: a title that says what is better, and a bar each."""

    title: str
    values: Sequence[tuple[str, float]]

    @property
    def height(self) -> int:
        return TITLE_HEIGHT + ROW_HEIGHT * len(self.values)


def svg(panels: Sequence[Panel]) -> str:
    """The panels in two columns, row by row. Bars of a panel begin at zero."""
    shapes: list[str] = []
    top = MARGIN
    for row in (panels[at : at + 2] for at in range(0, len(panels), 2)):
        for column, panel in enumerate(row):
            left = MARGIN + column * (COLUMN_WIDTH + COLUMN_GAP)
            shapes += _panel(panel, left, top)
        top += max(panel.height for panel in row) + PANEL_GAP
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" '
        f'height="{top}" role="img">\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel, left: int, top: int) -> Iterator[str]:
    yield f'<text class="title" x="{left}" y="{top + 13}">{escape(panel.title)}</text>'
    longest = max((value for _, value in panel.values), default=0.0) or 1.0
    for at, (name, value) in enumerate(panel.values):
        y = top + TITLE_HEIGHT + at * ROW_HEIGHT
        mark = ' class="ours"' if name == OURS else ""
        width = max(1.0, BAR_WIDTH * value / longest)
        x = left + NAME_WIDTH
        yield f'<text{mark} x="{left}" y="{y + 11}">{escape(name)}</text>'
        yield f'<rect{mark} x="{x}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="2"/>'
        yield f'<text{mark} x="{x + width + 6:.1f}" y="{y + 11}">{number(value)}</text>'
