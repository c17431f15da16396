"""The report of an evaluation as one HTML file, with images inside it; the template is report.html.

The report has no script and loads no other file, so that every browser can show it.
"""

import base64
from pathlib import Path

import jinja2
from PIL import Image

from common.files import replacing
from common.metrics import NAMES, STANDARD_THRESHOLD
from common.show import tables

DOTS_PER_CSS_PIXEL = 150 / 96  # figures have 150 dpi; they stay sharp at their size on paper
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.globals |= {"tables": tables, "NAMES": NAMES, "STANDARD_THRESHOLD": STANDARD_THRESHOLD}


def inlined(path: Path) -> dict:
    """Return a PNG file as {"source": a data URL, "width", "height"}. Unit: CSS pixels."""
    with Image.open(path) as image:
        width, height = (round(pixels / DOTS_PER_CSS_PIXEL) for pixels in image.size)
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"source": source, "width": width, "height": height}


def write_report(path: Path, evaluation: dict, pictures: dict[str, Path]) -> None:
    """Write the report of an evaluation, completely or not at all. Raises: UserError when the disk refuses.

    Args: evaluation: as evaluate.py stores it; pictures: {title: PNG file}.
    """
    drawn = {name: inlined(file) for name, file in pictures.items()}
    text = TEMPLATES.get_template("report.html").render(evaluation | {"pictures": drawn})
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
