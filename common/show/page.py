"""One HTML file that shows the tables and figures of a run: images inlined, no script, nothing fetched, any browser."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from common.files import replacing
from common.show import tables

DISCLAIMER = "Research only, not a medical device."
DOTS_PER_CSS_PIXEL = 150 / 96  # the figures are drawn at 150 dpi; shown at their size on paper they stay sharp

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { --ink: #1d2125; --muted: #5b6268; --page: #ffffff; --line: #d5d9dd; --stripe: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --muted: #a2aab1; --page: #15181b; --line: #3a4046; --stripe: #1d2125; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 78rem; overflow-wrap: anywhere;
       background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
.disclaimer, figcaption { color: var(--muted); }
.table { margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.9rem; border-bottom: 1px solid var(--line); vertical-align: top; text-align: right;
         white-space: pre; line-height: 1.35; }
th { font-weight: 600; }
th[scope=row], thead > tr > :first-child { position: sticky; left: 0; padding-left: 0.4rem; background: inherit;
                                           text-align: left; }
tr > :nth-child(2):last-child { text-align: left; white-space: pre-wrap; }
tr { background: var(--page); }
tbody tr:nth-child(even) { background: var(--stripe); }
@media (max-width: 40rem) { th, td { padding: 0.3rem 0.45rem; font-size: 0.9rem; } }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: start; }
figure { margin: 0; max-width: 100%; }
img { display: block; max-width: 100%; height: auto; padding: 0.5rem; border-radius: 6px; background: #ffffff; }
figcaption { padding-top: 0.3rem; font-size: 0.9rem; }
@media (prefers-color-scheme: dark) { img { filter: brightness(0.9); } }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="disclaimer">$disclaimer</p>
</header>
<main>
$sections
</main>
</body>
</html>
""")


@dataclass(frozen=True)
class Table:
    """A table of texts: the first cell of each row names the row; a line break in a cell stays one."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG file, what it shows in words for who cannot see it, and a caption for all."""

    path: Path
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report, shown in this order."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def metrics_table(summaries: dict[str, dict], caption: str = "") -> Table:
    """A row for each named summary (`metrics.summary`, or with intervals `intervals.summary`), an interval below its
    metric; the caption ends with why something is n/a."""
    header = ["", "images", *tables.COLUMNS.values()]
    rows = [[name, str(s["n"]), *(_metric(s, metric) for metric in tables.COLUMNS)] for name, s in summaries.items()]
    return Table(header, rows, " ".join([caption, *tables.undefined_notes(summaries)]).strip())


def _metric(summary: dict, metric: str) -> str:
    interval = tables.interval(summary[f"{metric}_ci95"]) if f"{metric}_ci95" in summary else ""
    return f"{tables.number(summary[metric])}\n{interval}".strip()


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>\n" if text else ""


def _table(table: Table) -> str:
    """Wide tables scroll by themselves, also by keyboard; the page does not."""
    header = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in table.rows
    )
    label = escape(table.caption or "table")
    return (
        f'<figure class="table">\n<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"</div>\n{_caption(table.caption)}</figure>"
    )


def _picture(picture: Picture) -> str:
    content = picture.path.read_bytes()
    width, height = (round(pixels / DOTS_PER_CSS_PIXEL) for pixels in struct.unpack(">II", content[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{escape(picture.alt)}" width="{width}" height="{height}">'
    return f"<figure>\n{image}\n{_caption(picture.caption)}</figure>"


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>", *(f"<p>{escape(text)}</p>" for text in section.paragraphs)]
    parts += [_table(table) for table in section.tables]
    if section.pictures:
        parts += ['<div class="figures">', *(_picture(picture) for picture in section.pictures), "</div>"]
    return "\n".join(["<section>", *parts, "</section>"])


def write_html(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the report, whole or not at all. Raises: UserError when the disk refuses."""
    body = "\n".join(_section(section) for section in sections)
    with replacing(path) as beside:
        beside.write_text(PAGE.substitute(title=escape(title), disclaimer=DISCLAIMER, sections=body), encoding="utf-8")
