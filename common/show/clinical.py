"""Figures for clinicians: is a model worth using, and for whom does it work. In the style of figures.py."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.show import tables
from common.show.figures import BELOW, CHOSEN, INK, MODEL, MUTED, REFERENCE, canvas, name_rows

WIDEST = 0.6  # threshold probability at which a decision curve ends
NAME = 26  # characters per line in the name of a subgroup
PANELS = {
    "auc": "AUC",
    "recall": "sensitivity at\nthreshold {:.3g}",
    "specificity": "specificity at\nthreshold {:.3g}",
    "calibration_in_the_large": "mean P(malignant)\nminus share",
}


def _end(rows: list[dict], at: float) -> float:
    """Return the threshold probability at which a decision curve ends.

    The curve ends where net benefit stays at 0 or less, at WIDEST at the latest, but always after the operating point.
    """
    useful = max((row["threshold"] for row in rows if row["net_benefit"] > 0), default=0)
    return max(min(useful + 0.01, WIDEST), min(at + 0.05, 1))


def decision_curve(rows: list[dict], point: dict, title: str) -> Figure:
    """Draw net benefit by threshold probability, for the model with its band, for flagging all images, and for none.

    Args: rows: of `netbenefit.curve`; point: the row of the operating point.
    """
    figure, axes = canvas(title, 6.6, 6)
    at, value, of_all = (point[name] for name in ("threshold", "net_benefit", "treat_all"))
    low, high = np.array([row["net_benefit_ci95"] for row in rows], float).T
    thresholds, values, treat_all = (
        np.array([row[name] for row in rows], float) for name in ("threshold", "net_benefit", "treat_all")
    )
    axes.fill_between(
        thresholds, low, high, color=MODEL, alpha=0.2, linewidth=0, label="95 % bootstrap band, pointwise"
    )
    axes.plot(thresholds, values, color=MODEL, label="the model")
    axes.plot(thresholds, treat_all, color=INK, linestyle="--", label="every image flagged (treat all)")
    axes.axhline(0, **REFERENCE, label="no image flagged (treat none)")
    axes.plot(at, value, "D", color=CHOSEN, markersize=9, zorder=5, clip_on=False, label=f"operating point {at:.3g}")
    said = f"net benefit at the operating point: {tables.with_limits(value, point['net_benefit_ci95'])}"
    axes.set_title(f"{said}\nevery image flagged: {of_all:.3f}, none: 0".replace("-", "−"))
    top = max(values.max(), 0.01)
    axes.set(xlim=(0, _end(rows, at)), ylim=(min(-0.25 * top, 1.2 * value), 1.1 * top))
    axes.set(xlabel="threshold probability", ylabel="net benefit")
    figure.legend(loc=BELOW)
    return figure


def _row_name(row: dict) -> str:
    name = textwrap.fill(str(row["value"]), NAME, max_lines=2, placeholder=" …")
    return f"{name}\n{row['n']} {row['unit']}s, {row['malignant']} malignant" + ", too few" * row["too_few"]


def _estimates(axes, rows: list[dict], measure: str) -> None:
    """Draw a measure of each row with its interval, and its number above."""
    for y, row in enumerate(rows):
        value, *limits = np.array([row[measure], *row[f"{measure}_ci95"]], float)  # None of JSON becomes nan
        colour, marker = (MUTED, "o") if row["too_few"] else (MODEL, "o") if y else (INK, "D")
        if np.isnan(value):
            axes.text(0.5, y, "n/a", color=MUTED, ha="center", va="center", transform=axes.get_yaxis_transform())
            continue
        errors = np.maximum([[value - limits[0]], [limits[1] - value]], 0)
        axes.errorbar(value, y, xerr=errors, fmt=marker, color=colour, markersize=7, capsize=4, clip_on=False)
        said = f"{value:+.2f}" if measure == "calibration_in_the_large" else f"{value:.2f}"
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the dotted line must not cross the number
        axes.text(value, y - 0.18, said.replace("-", "−"), color=colour, ha="center", va="bottom", bbox=behind)


def forest(entries: list[dict], title: str, note: str = "") -> Figure:
    """Draw AUC, sensitivity, specificity and calibration in the large of subgroups, with 95 % intervals.

    Args: entries: of `subgroups.rows`, all images first, which become dotted lines; note: what the reader should know.
    """
    lines = [_row_name(row) for row in entries]
    figure, panels = canvas(title, 11, 1.7 + 0.66 * len(entries), 1, len(PANELS), sharey=True)
    for axes, (measure, name) in zip(panels, PANELS.items()):
        axes.axvline(float(entries[0][measure]), **REFERENCE)
        _estimates(axes, entries, measure)
        name_rows(axes, lines)
        axes.set_title(name.format(entries[0]["threshold"]), weight="bold")
        if measure == "calibration_in_the_large":
            axes.axvline(0, color=MUTED, linewidth=1)  # where probabilities are right on average
        else:
            axes.set_xlim(right=1)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 4, 5, 10]))
    for label, row in zip(panels[0].get_yticklabels(), entries):
        label.set_color(MUTED if row["too_few"] else INK)
    figure.get_layout_engine().set(wspace=0.04)
    below = f"95 % intervals. Dotted: all images. {note}".replace(" = ", "\u00a0=\u00a0")  # keeps equations on one line
    figure.supxlabel(textwrap.fill(below, 125), x=0.01, ha="left", size=11)
    return figure
