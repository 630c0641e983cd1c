"""The page itself: one HTML file that needs nothing else, neither files nor a network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from string import Template
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..comparison import Comparison

_QUALITY = 92


@dataclass(frozen=True)
class Part:
    """A section. heading, note: text. body: HTML."""

    heading: str
    note: str
    body: str

    def html(self) -> str:
        return (
            f"<h2>{html.escape(self.heading)}</h2>\n"
            f'<p class="note">{html.escape(self.note)}</p>\n{self.body}'
        )


def write_report(
    file: BinaryIO,
    title: str,
    summary: str,
    facts: Iterable[tuple[str, str]],
    parts: Iterable[Part],
    written: str,
) -> None:
    """Writes the page, in UTF-8; all texts are escaped, and bytes of names that are no text shown.

    facts: names and values. written: the last line.
    """
    template = Template((files(__package__) / "page.html").read_text("utf-8"))
    rows = (
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    page = template.substitute(
        title=html.escape(title),
        summary=html.escape(summary),
        facts="\n".join(rows),
        parts="\n".join(part.html() for part in parts),
        written=html.escape(written),
    )
    file.write(page.encode("utf-8", "backslashreplace"))


def slider(
    left: np.ndarray, right: np.ndarray, names: tuple[str, str], *, enlarged: bool = False
) -> str:
    """Two pictures, uint8 (h, w, 3) each, one over the other, and what uncovers them.

    enlarged: their pixels are shown as squares.
    """
    kind = "pixels" if enlarged else "smooth"
    pictures = [_encoded(picture, lossless=enlarged) for picture in (left, right)]
    before, after = map(html.escape, names)
    return (
        f'<div class="pair"><img class="{kind}" src="{pictures[0]}" alt="{before}">'
        f'<img class="over {kind}" src="{pictures[1]}" alt="{after}">'
        f'<input type="range" min="0" max="100" step="0.1" value="50" '
        f'aria-label="{before} to the left, {after} to the right">'
        f'<span class="edge"></span><b class="left">{before}</b><b class="right">{after}</b></div>'
    )


def picture(png: bytes, text: str) -> str:
    """A PNG as it is. text: what it shows."""
    data = base64.b64encode(png).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(text)}"></figure>'


def levels_table(comparison: Comparison) -> str:
    """The errors by brightness."""
    total = sum(level.sites for level in comparison.levels)
    rows = [_row("th", ("brightness", "samples", "RMS error", "mean error", "largest error"))]
    for number, level in enumerate(comparison.levels):
        if not level.sites:
            continue
        rows.append(
            _row(
                "td",
                (
                    level_name(number, len(comparison.levels)),
                    f"{level.sites / total:.2%}",
                    f"{level.rms:.2f} DN",
                    f"{level.mean:+.2f} DN",
                    f"{level.largest} DN",
                ),
            )
        )
    head, *body = rows
    table = f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def level_name(number: int, count: int) -> str:
    """A range of brightness of so many, as photographers count: in stops below white."""
    if number == 0:
        return "white"
    if number == count - 1:
        return f"below {count - 2} stops under white"
    return f"{number - 1} to {number} stops under white"


def histogram(comparison: Comparison) -> str:
    """How many samples have which error: bars over errors that double, as SVG."""
    counts = comparison.histogram
    edges = [0, 1, *(1 << n for n in range(1, 17))]
    sums = [int(counts[low:high].sum()) for low, high in pairwise(edges)]
    while len(sums) > 1 and sums[-1] == 0:
        sums.pop()
    total = max(sum(sums), 1)
    width, height, left, bottom = 900, 260, 10, 40
    step = (width - left) / len(sums)
    highest = max(sums) / total
    drawn = []
    for number, found in enumerate(sums):
        share = found / total
        tall = (height - bottom - 24) * share / highest
        x, y = left + number * step, height - bottom - tall
        low, high = edges[number], edges[number + 1] - 1
        label = f"{low}" if low == high else f"{low} to {high}"
        said = f"{share:.1%}" if share >= 0.001 else f"{found}"
        drawn.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{tall:.1f}"/>'
            f'<text x="{x + step / 2:.1f}" y="{y - 6:.1f}" text-anchor="middle">{said}</text>'
            f'<text x="{x + step / 2:.1f}" y="{height - bottom + 16}" '
            f'text-anchor="middle">{label}</text>'
        )
    axis = height - bottom + 0.5
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Absolute errors">'
        f'<line x1="{left}" x2="{width}" y1="{axis}" y2="{axis}"/>{"".join(drawn)}'
        f'<text x="{left}" y="{height - 6}">absolute error, DN</text></svg>'
    )


def _row(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"


def _encoded(pixels: np.ndarray, *, lossless: bool) -> str:
    """A picture as a URL that holds it."""
    data = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if lossless:
        image.save(data, "PNG", optimize=True)
    else:
        image.save(data, "JPEG", quality=_QUALITY, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
