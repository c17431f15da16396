"""What the report of an evaluation says, in which order: the tables, the comparison, the figures."""

from collections.abc import Sequence
from pathlib import Path

from common.metrics import NAMES, STANDARD_THRESHOLD
from common.show import page, tables


def _metrics(what: str, split: str, scores: dict, notes: Sequence[str]) -> str:
    point, fit = scores["operating_point"], scores["calibration"]
    paragraphs = [
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
        page.metrics_table(scores["splits"], f"At the standard threshold {STANDARD_THRESHOLD}."),
        page.metrics_table(point["splits"], "At the operating point."),
        page.table(["", "Brier score", "ECE"], calibrated, "Calibration; ECE in 10 bins of equal mass."),
    ]
    return page.section("Metrics", page.columns([page.paragraph(text) for text in paragraphs], drawn))


def _comparison(tests: dict) -> str:
    rows = [
        [NAMES[name], f"{x['difference']:+.4f}", " to ".join(f"{limit:+.4f}" for limit in x["ci95"])]
        for name, x in tests["differences"].items()
    ]
    table = page.table(["", "difference", "95 % interval"], rows, "Paired bootstrap, at the standard threshold.")
    return page.section("Comparison", page.columns([page.paragraph(tests["conclusion"])], [table]))


def write(
    path: Path, called: str, what: str, split: str, scores: dict, pictures: dict[str, Path], notes: Sequence[str] = ()
) -> None:
    """Write the report of a split. Raises: UserError when the disk refuses.

    Args: called: the model's name; what: the data, and how it was predicted; scores: `scoring.evaluate_splits`, and
        under "comparison" what `comparison.compare` found; pictures: {what it shows: PNG file}; notes: sentences.
    """
    drawn = [page.picture(file, f"{name} of {called}", name) for name, file in pictures.items()]
    sections = [_metrics(what, split, scores, notes), page.section("Figures", page.figures(*drawn))]
    if "comparison" in scores:
        sections.insert(1, _comparison(scores["comparison"]))
    where = "all images" if split == "all" else f"the {split} split"
    page.write_html(path, f"evaluation of {called} on {where}", *sections)
