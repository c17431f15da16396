"""One HTML file that shows the tables and figures of a run: images inlined, no script, nothing fetched, any browser.

Each function but the last returns a piece of it, as HTML; the texts that it is given are escaped.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from common.files import replacing
from common.metrics import NAMES
from common.show import tables

DISCLAIMER = "Research only, not a medical device."
DOTS_PER_CSS_PIXEL = 150 / 96  # the figures are drawn at 150 dpi; shown at their size on paper they stay sharp
PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>\n" if text else ""


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """The first cell of each row names the row; a line break in a cell stays one. Wide tables scroll by themselves,
    also by keyboard; the page does not."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    label = escape(caption or "table")
    return (
        f'<figure class="table">\n<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"</div>\n{_caption(caption)}</figure>"
    )


def metrics_table(summaries: dict[str, dict], caption: str = "") -> str:
    """A row for each named summary (`metrics.summary`, or with intervals `intervals.summary`), an interval below its
    metric; the caption ends with why something is n/a."""
    rows = [
        [name, str(summary["n"]), *(tables.with_interval(summary, metric, "\n") for metric in NAMES)]
        for name, summary in summaries.items()
    ]
    caption = " ".join([caption, *tables.undefined_notes(summaries)]).strip()
    return table(["", "images", *NAMES.values()], rows, caption)


def picture(path: Path, alt: str, caption: str = "") -> str:
    """A PNG file; alt: what it shows, in words for who cannot see it."""
    content = path.read_bytes()
    width, height = (round(pixels / DOTS_PER_CSS_PIXEL) for pixels in struct.unpack(">II", content[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}">'
    return f"<figure>\n{image}\n{_caption(caption)}</figure>"


def section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *parts, "</section>"])


def columns(*parts: Sequence[str]) -> str:
    """Words beside tables where the window has room, else below each other."""
    return "\n".join(['<div class="columns">', *("\n".join(["<div>", *part, "</div>"]) for part in parts), "</div>"])


def figures(*pictures: str) -> str:
    """Pictures in two columns where the window has room."""
    return "\n".join(['<div class="figures">', *pictures, "</div>"])


def write_html(path: Path, title: str, *sections: str) -> None:
    """Write the page, whole or not at all. Raises: UserError when the disk refuses."""
    text = PAGE.substitute(title=escape(title), disclaimer=DISCLAIMER, sections="\n".join(sections))
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
