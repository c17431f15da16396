"""Figures of a run, in one style. Each function takes arrays and returns a matplotlib Figure, and `save` writes it.

These arguments mean the same in all functions: labels, [n], 1 for malignant; probabilities, [n], P(malignant); counts,
[resamples, n], from `intervals.resample_counts`; thresholds, {name: threshold}.

The colours are from Okabe & Ito (Color Universal Design, 2008); colour-blind readers can tell them apart. Vermillion is
malignant and blue is benign in all figures. All other things have other colours.
"""

import textwrap
import warnings
from math import isnan, nan
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common import calibration, intervals, metrics
from common.evidence import BENIGN, MALIGNANT
from common.files import replacing
from common.metrics import NAMES
from common.show import tables

MODEL, CHOSEN, INK, MUTED, FAINT = "#009E73", "#CC79A7", "#222222", "#707070", "#E5E5E5"
REFERENCE = {"color": MUTED, "linestyle": ":", "linewidth": 1.5}  # a line for chance, or for no difference
THRESHOLD_STYLES = ((INK, "o", "-"), (CHOSEN, "D", "--"), ("#56B4E9", "s", "-."), ("#E69F00", "^", ":"))
# "default" comes first, so that a matplotlibrc of the user does not change the figures.
matplotlib.style.use(["default", Path(__file__).with_name("figures.mplstyle")])

BELOW = "outside lower left"  # place of a legend, under the axes, where no curve can cross it
SIDE = 1.12  # side of an image in a sheet, in inches
LETTERS = 11  # letters of size 11 per inch
TINT = 0.7  # share of the colour in the deepest tint of a cell, on which dark text is readable


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, completely or not at all. The same figure gives the same bytes. Raises: UserError."""
    with replacing(Path(path)) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in scripts that the font lacks
        figure.savefig(beside, format="png", metadata={"Software": None})


def canvas(title: str, width: float, height: float, rows: int = 1, columns: int = 1, **grid):
    """Return (figure, axes) with a title at the left. Sizes in inches; each extra line of the title adds height."""
    title = textwrap.fill(title, max(int(8.5 * width), 12))
    figure = Figure((width, height + 0.22 * title.count("\n")), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, **grid)


def training_curves(history: list[dict], best_epoch: int, title: str) -> Figure:
    """Draw loss, learning rate, and validated accuracy and AUC by epoch. history, best_epoch: of `training.Fit`."""
    panels = {"loss": {"train_loss": ("training", MUTED)}}
    if "val_loss" in history[0]:
        panels["loss"]["val_loss"] = ("validation", MODEL)
        panels["on validation"] = {"val_accuracy": ("accuracy", INK), "val_auc": ("AUC", MODEL)}
    panels["learning rate"] = {"lr": ("", MUTED)}
    ratios = [2] * (len(panels) - 1) + [1]
    figure, axes = canvas(title, 7.2, 1.2 * sum(ratios) + 0.8, len(panels), sharex=True, height_ratios=ratios)
    epochs = [entry["epoch"] for entry in history]
    for panel, (name, lines) in zip(axes, panels.items()):
        for key, (label, colour) in lines.items():
            panel.plot(epochs, [entry[key] for entry in history], color=colour, marker="o", markersize=3, label=label)
        kept = f"kept: epoch {best_epoch}" if panel is axes[0] else None
        panel.axvline(best_epoch, color=CHOSEN, linestyle="--", linewidth=1.5, label=kept)
        panel.set_title(name)
        if name != "learning rate":
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes[-1].set(xlabel="epoch", xlim=(0.5, len(history) + 0.5), ylim=(0, None))
    axes[-1].yaxis.set_major_formatter("{x:g}")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _curve(metric: str, area, band, labels, probabilities, counts, title: str):
    """Return (figure, axes) for a curve from 0 to 1, with its bootstrap band and the area under it.

    The title has the area with its interval, or why it is nan. area, band: functions of `metrics` and `intervals`.
    """
    figure, axes = canvas(title, 6, 7)
    value = area(labels, probabilities)
    limits = intervals.percentile_interval(value, area(labels, probabilities, counts))
    why = f", {tables.UNDEFINED[metric]}" if isnan(value) else ""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"{NAMES[metric]}, 95 % interval: {tables.with_limits(value, limits)}{why}")
    low_and_high = band(labels, probabilities, counts)
    axes.fill_between(*low_and_high, color=MODEL, alpha=0.2, linewidth=0, label="95 % bootstrap band, pointwise")
    return figure, axes


def _styled(thresholds: dict[str, float]):
    """Yield (name with value, threshold, (colour, marker, line style)) for each threshold."""
    names = [f"{name}, threshold {threshold:.3g}" for name, threshold in thresholds.items()]
    return zip(names, thresholds.values(), THRESHOLD_STYLES)


def _points(axes, labels, probabilities, thresholds, names: dict[str, str], place) -> None:
    """Mark the named thresholds on a curve, with two rates in the legend. A rate of nan draws no point.

    Args: names: {rate of `metrics.rates`: name}; place: a function of both rates that returns (x, y).
    """
    for name, threshold, (colour, marker, _) in _styled(thresholds):
        rates = metrics.rates(labels, probabilities >= threshold)
        said = ", ".join(f"{called} {tables.number(rates[rate], '.3f')}" for rate, called in names.items())
        at = place(*(rates[rate] for rate in names))
        axes.plot(*at, marker, color=colour, markersize=9, clip_on=False, zorder=5, label=f"{name}: {said}")
    axes.figure.legend(loc=BELOW)


def roc(labels, probabilities, counts, thresholds: dict[str, float], title: str) -> Figure:
    """Draw the ROC curve with its bootstrap band, its AUC, and points of the named thresholds."""
    figure, axes = _curve("auc", metrics.auc, intervals.roc_band, labels, probabilities, counts, title)
    axes.set_xlabel(f"1 − specificity ({(labels == 0).sum()} benign)")
    axes.set_ylabel(f"sensitivity ({labels.sum()} malignant)")
    axes.plot([0, 1], [0, 1], **REFERENCE, label="chance")
    axes.plot(*metrics.roc_curve(labels, probabilities), color=MODEL, clip_on=False)
    names = {"recall": "sensitivity", "specificity": "specificity"}
    _points(axes, labels, probabilities, thresholds, names, lambda recall, specificity: (1 - specificity, recall))
    return figure


def precision_recall(labels, probabilities, counts, thresholds: dict[str, float], title: str) -> Figure:
    """Draw the precision-recall curve, step-wise as in average precision, with band, prevalence and thresholds."""
    area, band = metrics.average_precision, intervals.precision_recall_band
    figure, axes = _curve("aupr", area, band, labels, probabilities, counts, title)
    axes.set(xlabel=f"recall ({labels.sum()} malignant)", ylabel="precision")
    axes.axhline(labels.mean(), **REFERENCE, label=f"chance: the share of malignant, {labels.mean():.2f}")
    recalls, precisions = metrics.precision_recall_curve(labels, probabilities)
    first = np.unique(recalls, return_index=True)[1]  # the highest threshold that reaches each recall
    first = first[recalls[first] != 0]  # average precision ignores thresholds that reach no positive
    axes.step(np.r_[0, recalls[first]], precisions[np.r_[first[:1], first]], color=MODEL, clip_on=False)
    names = {"recall": "recall", "precision": "precision"}
    _points(axes, labels, probabilities, thresholds, names, lambda recall, precision: (recall, precision))
    return figure


def _bins(axes, rows: list[dict], colour: str, marker: str, label: str) -> None:
    """Draw observed against predicted shares. rows: of `calibration.reliability_rows`."""
    predicted, observed = ([row[name] for row in rows] for name in ("predicted", "observed"))
    errors = np.array([[o - row["observed_ci95"][0], row["observed_ci95"][1] - o] for o, row in zip(observed, rows)]).T
    style = {"color": colour, "markersize": 7, "elinewidth": 1.5, "clip_on": False, "label": label}
    axes.errorbar(predicted, observed, np.maximum(errors, 0), fmt=marker, **style)


def calibration_change(curves: dict[str, list[dict]], title: str) -> Figure:
    """Draw reliability "before" and, by cross-validation, "after" a recalibration. curves: of `reliability_rows`."""
    figure, axes = canvas(title, 6, 6.4)
    axes.plot([0, 1], [0, 1], **REFERENCE, label="perfect calibration")
    _bins(axes, curves["before"], MUTED, "s", "before calibration")
    _bins(axes, curves["after"], MODEL, "o", "after calibration on these images, by cross-validation")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean P(malignant) of a bin", ylabel="share that is malignant")
    figure.legend(loc=BELOW)
    return figure


def reliability(labels, probabilities, title: str) -> Figure:
    """Draw a reliability diagram, in bins of equal mass with exact intervals, above a histogram of probabilities."""
    figure, (axes, strip) = canvas(title, 6, 7.2, 2, sharex=True, height_ratios=[5, 1])
    rows = calibration.reliability_rows(labels, probabilities)
    axes.plot([0, 1], [0, 1], **REFERENCE, label="perfect calibration")
    _bins(axes, rows, MODEL, "o", "a bin, with its exact 95 % interval")
    found = calibration.summary(labels, probabilities)
    error = f"expected calibration error {found['ece']:.3f} ({len(rows)} bins of equal mass)"
    axes.set_title(f"Brier score {found['brier']:.3f}\n{error}")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is malignant")
    strip.hist(probabilities, np.linspace(0, 1, 21), color=MUTED, edgecolor="white")
    strip.set(xlabel="P(malignant)", ylabel="number")
    figure.align_ylabels()
    figure.legend(loc=BELOW)
    return figure


def tints_of(colour: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(colour, ["white", colour])


def name_cells(axes, columns, rows, **more) -> None:
    """Write the names of the columns and rows of cells, instead of ticks and frame."""
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows, **more)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def confusion(labels, probabilities, thresholds: dict[str, float], title: str) -> Figure:
    """Draw a confusion matrix for each threshold, truth in rows: counts, and shares in the colour of the class."""
    figure, grid = canvas(title, max(1.2 + 2.9 * len(thresholds), 5), 4.1, 1, len(thresholds), squeeze=False)
    for axes, (name, threshold) in zip(grid[0], thresholds.items()):
        tp, fp, fn, tn = metrics.confusion(labels, probabilities >= threshold)
        counts = np.array([[tp, fn], [fp, tn]])
        with np.errstate(invalid="ignore"):
            shares = counts / counts.sum(1, keepdims=True)
        tints = [tints_of(colour)(row) for colour, row in zip((MALIGNANT, BENIGN), shares)]
        axes.imshow(tints, alpha=TINT, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            axes.text(j, i - 0.06, f"{counts[i, j]:.0f}", size=18, weight="bold", ha="center", va="center")
            axes.text(j, i + 0.2, "n/a" if isnan(share) else f"{100 * share:.0f} %", ha="center", va="center")
        name_cells(axes, ["at or above", "below"], ["malignant", "benign"], rotation=90, va="center")
        axes.set_xlabel("the threshold")
        axes.set_title(f"{name},\nthreshold {threshold:.3g}")
    grid[0, 0].set_ylabel("truth")
    return figure


def score_histogram(labels, probabilities, thresholds: dict[str, float], title: str) -> Figure:
    """Draw how many images or patients of each class have which probability, with the named thresholds."""
    figure, panels = canvas(title, 6, 5, 2, sharex=True)
    for axes, label, name, colour in zip(panels, (1, 0), ("malignant", "benign"), (MALIGNANT, BENIGN)):
        of_class = probabilities[labels == label]
        axes.hist(of_class, np.linspace(0, 1, 21), color=colour, edgecolor="white")
        axes.set_title(f"{len(of_class)} {name}", color=colour, weight="bold")
        axes.set(ylabel="number", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        for text, threshold, (line_colour, _, line) in _styled(thresholds):
            axes.axvline(threshold, color=line_colour, linestyle=line, label=text if label else None)
    panels[1].set_xlabel("P(malignant)")
    figure.legend(loc=BELOW)
    return figure


def image_sheet(images, captions: list[str], columns: int, title: str, frames=None, note="") -> Figure:
    """Draw images in a grid at readable size, each pixel as a crisp square, with a caption below each tile.

    Args: images: uint8 [n, k, h, w], or in colour [n, k, h, w, 3]: n tiles of k images side by side under one caption;
    captions: [n], broken into lines that fit; frames: [n], the colour around each tile, or None for no frames; note:
    what the reader should know, below the images.
    """
    n, k = images.shape[:2]
    columns, width = max(min(columns, n), 1), k * SIDE
    rows = max(-(-n // columns), 1)
    captions = ["\n".join(textwrap.fill(part, int(LETTERS * width)) for part in text.split("\n")) for text in captions]
    lines = max((text.count("\n") + 1 for text in captions), default=0)
    size = max(columns * (width + 0.15) + 0.15, 4), rows * (SIDE + 0.19 * lines + 0.2) + 0.9
    figure, grid = canvas(title, *size, rows, columns, squeeze=False)
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    gap = max(1, round(images.shape[3] / 28))  # white pixels between the images of a tile
    for i, (axes, text) in enumerate(zip(grid.flat, captions)):
        padded = np.pad(images[i], [(0, gap * (axis == 2)) for axis in range(images.ndim - 1)], constant_values=255)
        tile = np.hstack(list(padded))[:, :-gap]
        axes.imshow(tile, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(text, loc="left")
        axes.spines[:].set(visible=frames is not None, color=frames[i] if frames is not None else None, linewidth=4)
    below = note and "\n" + textwrap.fill(note, int(LETTERS * size[0]))  # an empty line separates note and captions
    figure.supxlabel(below, x=0.01, ha="left", size=11)
    return figure


def _interval(axes, y: int, value: float, limits, text: str = "", colour: str = MODEL, marker: str = "o") -> None:
    """Draw a value with its interval in row y, and a text at the right."""
    errors = [[value - limits[0]], [limits[1] - value]]
    axes.errorbar(value, y, xerr=errors, fmt=marker, color=colour, markersize=7, capsize=4)
    axes.text(1.02, y, text.replace("-", "−"), transform=axes.get_yaxis_transform(), va="center_baseline")


def name_rows(axes, names: list[str]) -> None:
    """Write the names of rows from top to bottom, instead of an axis."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT)


def fold_overview(folds: list[dict], pooled: dict, title: str) -> Figure:
    """Draw AUC and accuracy of folds, their mean ± std, and the pooled value with its interval."""
    figure, panels = canvas(title, 6.6, 4.4, 2, sharex=True)
    for axes, name in zip(panels, ("auc", "accuracy")):
        values = np.array([fold[name] for fold in folds], float)  # None of JSON becomes nan
        mean, std = intervals.mean_std(values)
        axes.plot(values, np.zeros(len(values)), "o", color=MUTED, markersize=8, alpha=0.6, markeredgewidth=0)
        _interval(axes, 0, nan, (nan, nan), f"{len(values)} folds")
        _interval(axes, 1, mean, (mean - std, mean + std), tables.plus_minus(mean, std), INK, "s")
        value, limits = pooled[name], pooled[f"{name}_ci95"]
        _interval(axes, 2, value, limits, tables.with_limits(value, limits), marker="D")
        name_rows(axes, ["folds", "mean ± std", "pooled, 95 % interval"])
        axes.set_title(NAMES[name], weight="bold")
    return figure


def comparison(differences: dict[str, dict], name_a: str, name_b: str, title: str) -> Figure:
    """Draw differences between two models, and a line at 0. differences: of `comparison.paired_bootstrap`."""
    figure, axes = canvas(title, 6.6, 1.5 + 0.42 * len(differences))
    axes.axvline(0, **REFERENCE)
    for y, result in enumerate(differences.values()):
        value, limits = result["difference"], result["ci95"]
        _interval(axes, y, value, limits, tables.with_limits(value, limits, "+.3f"))
    name_rows(axes, [NAMES[name] for name in differences])
    axes.set_xlabel(textwrap.fill(f"{name_a} minus {name_b}, with 95 % interval", 48))
    return figure
