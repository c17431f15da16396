"""The report of an evaluation as one HTML file: images inlined, no script, nothing fetched, any browser.

Each function but the last two returns a piece of it, as HTML; the texts that it is given are escaped.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from common.files import replacing
from common.metrics import NAMES, STANDARD_THRESHOLD
from common.show import tables

DISCLAIMER = "Research only, not a medical device."
DOTS_PER_CSS_PIXEL = 150 / 96  # the figures are drawn at 150 dpi; shown at their size on paper they stay sharp
PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """The first cell of each row names the row; a line break in a cell stays one. Wide tables scroll by themselves,
    also by keyboard; the page does not."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    label = escape(caption)
    return (
        f'<figure class="table">\n<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"</div>\n<figcaption>{label}</figcaption>\n</figure>"
    )


def metrics_table(summaries: dict[str, dict], caption: str) -> str:
    """A row for each named summary (`metrics.summary`, or with intervals `intervals.summary`), an interval below its
    metric; the caption ends with why something is n/a."""
    rows = [
        [name, str(summary["n"]), *(tables.with_interval(summary, metric, "\n") for metric in NAMES)]
        for name, summary in summaries.items()
    ]
    return table(["", "images", *NAMES.values()], rows, " ".join([caption, *tables.undefined_notes(summaries)]))


def picture(path: Path, alt: str, caption: str) -> str:
    """A PNG file; alt: what it shows, in words for who cannot see it."""
    content = path.read_bytes()
    width, height = (round(pixels / DOTS_PER_CSS_PIXEL) for pixels in struct.unpack(">II", content[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}">'
    return f"<figure>\n{image}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *parts, "</section>"])


def columns(sentences: Sequence[str], *drawn: str) -> str:
    """Sentences beside tables where the window has room, else above them."""
    parts = [paragraph(text) for text in sentences], drawn
    return "\n".join(['<div class="columns">', *("\n".join(["<div>", *part, "</div>"]) for part in parts), "</div>"])


def figures(*pictures: str) -> str:
    """Pictures in two columns where the window has room."""
    return "\n".join(['<div class="figures">', *pictures, "</div>"])


def metrics_section(what: str, split: str, scores: dict, notes: Sequence[str]) -> str:
    """The tables of `scoring.evaluate_splits`. what: the data, and how they were predicted; notes: sentences."""
    point, fit = scores["operating_point"], scores["calibration"]
    sentences = [
        f"{what}. Malignant is the positive class; brackets are 95 % bootstrap intervals, which draw images of one "
        "lesion or patient together. “clean” leaves out images that share such a group with one of training or "
        "validation.",
        f"The operating point {point['threshold']:.4f} is the {point['rule']}; the temperature "
        f"{fit['temperature']:.3f} was fitted on {fit['fitted_on']}.",
        *notes,
        f"At the operating point, {tables.operating_rates(split, point['splits'][split])}.",
    ]
    calibrated = [
        [name, *(tables.with_interval(fit[name], m, "\n") for m in ("brier", "ece"))] for name in scores["splits"]
    ]
    drawn = [
        metrics_table(scores["splits"], f"At the standard threshold {STANDARD_THRESHOLD}."),
        metrics_table(point["splits"], "At the operating point."),
        table(["", "Brier score", "ECE"], calibrated, "Calibration; ECE in 10 bins of equal mass."),
    ]
    return section("Metrics", columns(sentences, *drawn))


def comparison_section(tests: dict) -> str:
    """What `comparison.compare` found."""
    rows = [
        [NAMES[name], f"{x['difference']:+.4f}", " to ".join(f"{limit:+.4f}" for limit in x["ci95"])]
        for name, x in tests["differences"].items()
    ]
    drawn = table(["", "difference", "95 % interval"], rows, "Paired bootstrap, at the standard threshold.")
    return section("Comparison", columns([tests["conclusion"]], drawn))


def write_html(path: Path, title: str, *sections: str) -> None:
    """Write the page, whole or not at all. Raises: UserError when the disk refuses."""
    text = PAGE.substitute(title=escape(title), disclaimer=DISCLAIMER, sections="\n".join(sections))
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_report(
    path: Path, called: str, what: str, split: str, scores: dict, pictures: dict[str, Path], notes: Sequence[str]
) -> None:
    """Write the report of a split. Raises: UserError when the disk refuses.

    Args: called: the model's name; what, notes: as `metrics_section`; scores: `scoring.evaluate_splits`, and under
        "comparison" what `comparison.compare` found, if anything; pictures: {what it shows: PNG file}.
    """
    sections = [metrics_section(what, split, scores, notes)]
    if "comparison" in scores:
        sections.append(comparison_section(scores["comparison"]))
    drawn = [picture(file, f"{name} of {called}", name) for name, file in pictures.items()]
    where = "all images" if split == "all" else f"the {split} split"
    write_html(path, f"evaluation of {called} on {where}", *sections, section("Figures", figures(*drawn)))
