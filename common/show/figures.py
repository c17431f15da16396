"""Figures of a run, in one style: each function takes arrays and returns a matplotlib Figure, `save` writes it.

The colours are Okabe & Ito's (Color Universal Design, 2008), which colour-blind readers tell apart too. Vermillion is
malignant and blue is benign everywhere; all other things have other colours. Lines are labelled where they end.
"""

import math
import textwrap
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from common import calibration, intervals, metrics
from common.files import replacing
from common.intervals import wilson
from common.metrics import NAMES
from common.show.tables import UNDEFINED

MALIGNANT, BENIGN = "#D55E00", "#0072B2"
MODEL, CHOSEN, INK, MUTED, FAINT = "#009E73", "#CC79A7", "#222222", "#707070", "#E5E5E5"
WRONG, RIGHT = CHOSEN, MODEL
THRESHOLD_STYLES = ((INK, "o", "-"), (CHOSEN, "D", "--"), ("#56B4E9", "s", "-."), ("#E69F00", "^", ":"))
DPI = 150
STYLE = {
    "figure.dpi": DPI,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2,
    "legend.frameon": False,
}
matplotlib.style.use(["default", STYLE])  # "default": a reader's own matplotlibrc does not change the figures

SHEET_SIDE = 168  # pixels that a small image is enlarged to in a sheet, as nearly as whole factors allow
GAP, HAIR, LINE, FRAME = 18, 4, 25, 5  # pixels in a sheet: between tiles, within a tile, a line of text, a frame
LETTER = 13.0  # mean width of a letter of size 11, pixels
HEAT_OPACITY = 0.65
DEEPEST = 0.7  # share of a colour in a cell's tint


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, whole or not at all; the same figure gives the same bytes. Raises: UserError."""
    with replacing(Path(path)) as beside:
        figure.savefig(beside, format="png", metadata={"Software": None})


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _headline(metric: str, function, labels, probabilities, counts) -> str:
    """ "AUC 0.912, 95 % interval 0.857 to 0.956", or why there is none."""
    value = function(labels, probabilities)
    if math.isnan(value):
        return f"{NAMES[metric]} n/a: {UNDEFINED[metric]}"
    low, high = intervals.percentile_interval(value, function(labels, probabilities, counts))
    return f"{NAMES[metric]} {value:.3f}, 95 % interval {low:.3f} to {high:.3f}"


def _wrap(title: str, inches: float) -> str:
    """A bold title, broken into lines that fit the width."""
    return textwrap.fill(title, max(int(8.5 * inches), 12))


def _canvas(title: str, width: float, height: float, rows: int = 1, columns: int = 1, **grid):
    """(figure, axes) with a title at the left; sizes in inches, the height that of a figure with one line of title."""
    title = _wrap(title, width)
    figure = Figure((width, height + 0.22 * title.count("\n")), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, **grid)


def _unit_square(axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x_label, ylabel=y_label)


def _legend_below(figure: Figure, columns: int = 1) -> None:
    """Under the axes, where no curve can run into it."""
    figure.legend(loc="outside lower left", ncols=columns)


def _styled(thresholds: dict[str, float]):
    """(name with value, threshold, (colour, marker, line style)) of each threshold."""
    names = [f"{name}, threshold {threshold:.3g}" for name, threshold in thresholds.items()]
    return zip(names, thresholds.values(), THRESHOLD_STYLES)


def _point(axes, x: float, y: float, style: tuple[str, str, str], text: str) -> None:
    """A threshold's place on a curve; nan draws none, but keeps its words in the legend."""
    axes.plot(x, y, style[1], color=style[0], markersize=9, clip_on=False, zorder=5, label=text)


def _label_ends(axes, x: float, ends: dict[str, tuple[float, str]]) -> None:
    """Names of one or two lines at their right ends, apart even where the ends meet. ends: {name: (y, colour)}."""
    sides = ["center"] if len(ends) == 1 else ["top", "bottom"]
    for side, (name, (y, colour)) in zip(sides, sorted(ends.items(), key=lambda end: end[1][0])):
        axes.annotate(name, (x, y), (7, 0), textcoords="offset points", color=colour, va=side)


def _curve(axes, history: list[dict], keys: dict[str, tuple[str, str]]) -> None:
    """Some entries of the history against the epoch. keys: {key: (name, colour)}."""
    epochs = [entry["epoch"] for entry in history]
    for key, (_, colour) in keys.items():
        axes.plot(epochs, [entry[key] for entry in history], color=colour, marker="o", markersize=3)
    _label_ends(axes, epochs[-1], {name: (history[-1][key], colour) for key, (name, colour) in keys.items()})


def training_curves(history: list[dict], best_epoch: int, title: str) -> Figure:
    """Loss, accuracy and AUC (where validated) and learning rate by epoch; a line marks the epoch that was kept.

    Args: history: of `training.Fit`, one dict an epoch with "epoch", "lr", "train_loss", and where validated
        "val_loss", "val_accuracy", "val_auc".
    """
    panels = {"loss": {"train_loss": ("training", MUTED)}}
    if "val_loss" in history[0]:
        panels["loss"]["val_loss"] = ("validation", MODEL)
        panels["on validation"] = {"val_accuracy": ("accuracy", INK), "val_auc": ("AUC", MODEL)}
    panels["learning rate"] = {"lr": ("", MUTED)}
    ratios = [2] * (len(panels) - 1) + [1]
    figure, axes = _canvas(title, 6.4, 1.2 * sum(ratios) + 0.8, len(panels), sharex=True, height_ratios=ratios)
    for panel, (name, keys) in zip(axes, panels.items()):
        panel.axvline(best_epoch, color=CHOSEN, linestyle="--", linewidth=1.5)
        panel.margins(y=0.14)
        _curve(panel, history, keys)
        panel.set_title(name)
    late = best_epoch > len(history) / 2
    axes[0].annotate(
        f"kept: epoch {best_epoch}",
        (best_epoch, 1),
        (-6 if late else 6, 0),
        va="top",
        ha="right" if late else "left",
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
    )
    axes[-1].set(xlabel="epoch", xlim=(0.5, len(history) + 0.5), ylim=(0, None))
    axes[-1].yaxis.set_major_formatter("{x:g}")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def roc(labels, probabilities, counts, thresholds: dict[str, float], title: str) -> Figure:
    """ROC curve with its bootstrap band, AUC, and the points of the named thresholds.

    Args: labels: [n], 1 for malignant; probabilities: [n]; counts: [resamples, n] from `intervals.resample_counts`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    figure, axes = _canvas(title, 6, 7)
    grid, low, high = intervals.roc_band(labels, probabilities, counts)
    axes.fill_between(grid, low, high, color=MODEL, alpha=0.2, linewidth=0, label="95 % bootstrap band, pointwise")
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.5)
    axes.text(
        0.62,
        0.6,
        "chance",
        color=MUTED,
        va="top",
        ha="center",
        rotation=45,
        rotation_mode="anchor",
        transform_rotates_text=True,
    )
    axes.plot(*metrics.roc_curve(labels, probabilities), color=MODEL, clip_on=False)
    for name, threshold, style in _styled(thresholds):
        called = probabilities >= threshold
        sensitivity, specificity = metrics.recall(labels, called), metrics.specificity(labels, called)
        text = f"{name}: sensitivity {_number(sensitivity)}, specificity {_number(specificity)}"
        _point(axes, 1 - specificity, sensitivity, style, text)
    axes.set_title(_headline("auc", metrics.auc, labels, probabilities, counts))
    positives = int(np.sum(labels))
    _unit_square(axes, f"1 − specificity ({len(labels) - positives} benign)", f"sensitivity ({positives} malignant)")
    _legend_below(figure)
    return figure


def precision_recall(labels, probabilities, counts, thresholds: dict[str, float], title: str) -> Figure:
    """Precision-recall curve, step-wise as average precision sums it, with bootstrap band, prevalence and thresholds.

    Args: labels: [n], 1 for malignant; probabilities: [n]; counts: [resamples, n] from `intervals.resample_counts`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    figure, axes = _canvas(title, 6, 7)
    grid, low, high = intervals.precision_recall_band(labels, probabilities, counts)
    axes.fill_between(grid, low, high, color=MODEL, alpha=0.2, linewidth=0, label="95 % bootstrap band, pointwise")
    prevalence = np.mean(labels)
    axes.axhline(prevalence, color=MUTED, linestyle=":", linewidth=1.5)
    side = "bottom" if prevalence < 0.5 else "top"
    axes.text(0.02, prevalence, f"share of malignant {prevalence:.2f}", color=MUTED, va=side)
    recalls, precisions = metrics.precision_recall_curve(labels, probabilities)
    first = np.unique(recalls, return_index=True)[1]  # each recall at the highest threshold that reaches it
    first = first[recalls[first] != 0]  # average precision leaves out thresholds that reach no positive
    axes.step(np.r_[0, recalls[first]], precisions[np.r_[first[:1], first]], color=MODEL, clip_on=False)
    for name, threshold, style in _styled(thresholds):
        called = probabilities >= threshold
        recall, precision = metrics.recall(labels, called), metrics.precision(labels, called)
        _point(axes, recall, precision, style, f"{name}: recall {_number(recall)}, precision {_number(precision)}")
    axes.set_title(_headline("aupr", metrics.average_precision, labels, probabilities, counts))
    _unit_square(axes, f"recall ({int(np.sum(labels))} malignant)", "precision")
    _legend_below(figure)
    return figure


def reliability(labels, probabilities, title: str, bins: int = 10) -> Figure:
    """Predicted against observed share of malignant images in bins of equal mass, with Wilson intervals; below, how
    many images have which probability. labels: [n], 1 for malignant; probabilities: [n]."""
    figure, (axes, strip) = _canvas(title, 6, 7.2, 2, sharex=True, height_ratios=[5, 1])
    predicted, observed, sizes = calibration.reliability(labels, probabilities, bins)
    low, high = wilson(observed, sizes)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.5)
    axes.errorbar(
        predicted,
        observed,
        (observed - low, high - observed),
        fmt="o",
        color=MODEL,
        markersize=7,
        elinewidth=1.5,
        clip_on=False,
        label="a bin, with its 95 % interval",
    )
    score = calibration.brier(labels, probabilities)
    error = calibration.expected_calibration_error(labels, probabilities, bins)
    axes.set_title(f"Brier score {score:.3f}\nexpected calibration error {error:.3f} ({len(sizes)} bins of equal mass)")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is malignant")
    strip.hist(probabilities, np.linspace(0, 1, 21), color=MUTED, edgecolor="white")
    strip.set(xlabel="P(malignant)", ylabel="images")
    figure.align_ylabels()
    _legend_below(figure)
    return figure


def _shade(colour: str, share: float) -> np.ndarray:
    """White for a share of 0 or nan, the deepest tint of a colour on which dark text is still readable for 1."""
    return 1 - DEEPEST * np.nan_to_num(share) * (1 - np.array(to_rgb(colour)))


def confusion(labels, probabilities, thresholds: dict[str, float], title: str) -> Figure:
    """A confusion matrix for each named threshold, truth in rows, calls in columns: counts, and shares of the row.

    Args: labels: [n], 1 for malignant; probabilities: [n]; thresholds: {name: threshold}.
    """
    probabilities = np.asarray(probabilities)
    figure, grid = _canvas(title, max(1.2 + 2.9 * len(thresholds), 5), 4.1, 1, len(thresholds), squeeze=False)
    for axes, (name, threshold) in zip(grid[0], thresholds.items()):
        tp, fp, fn, tn = metrics.confusion(labels, probabilities >= threshold)
        _matrix(axes, np.array([[tp, fn], [fp, tn]]))
        axes.set_title(f"{name},\nthreshold {threshold:.3g}")
    grid[0, 0].set_ylabel("truth")
    return figure


def _matrix(axes, counts: np.ndarray) -> None:
    """One confusion matrix [[tp, fn], [fp, tn]], each row in the colour of its class."""
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(1, keepdims=True)
    cells = [[_shade(colour, share) for share in row] for colour, row in zip((MALIGNANT, BENIGN), shares)]
    axes.imshow(cells, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        percentage = "n/a" if np.isnan(share) else f"{100 * share:.0f} %"
        axes.text(j, i - 0.06, f"{counts[i, j]:.0f}", size=18, weight="bold", ha="center", va="center")
        axes.text(j, i + 0.2, percentage, ha="center", va="center")
    names = ["malignant", "benign"]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set_xlabel("called")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def score_histogram(labels, probabilities, thresholds: dict[str, float], title: str) -> Figure:
    """How many images of each class have which probability, with the named thresholds.

    Args: labels: [n], 1 for malignant; probabilities: [n]; thresholds: {name: threshold}.
    """
    labels, probabilities = np.asarray(labels, bool), np.asarray(probabilities)
    figure, panels = _canvas(title, 6, 5, 2, sharex=True)
    for axes, (name, members, colour) in zip(panels, (("malignant", labels, MALIGNANT), ("benign", ~labels, BENIGN))):
        axes.hist(probabilities[members], np.linspace(0, 1, 21), color=colour, edgecolor="white")
        axes.set_title(f"{members.sum()} {name}", color=colour, weight="bold")
        axes.set(ylabel="images", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for name, threshold, (colour, _, style) in _styled(thresholds):
        for axes in panels:
            axes.axvline(threshold, color=colour, linestyle=style, label=name if axes is panels[0] else None)
    panels[1].set_xlabel("P(malignant)")
    _legend_below(figure)
    return figure


def overlay(images: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Grey images with heat laid over them, the stronger the hotter; where heat is nan or 0 the grey shows as it is.

    Args: images: uint8 [...]; heat: [...] in [0, 1]. Returns: uint8 [..., 3].
    """
    grey, heat = images[..., None] / 255, np.nan_to_num(heat)
    colour = matplotlib.colormaps["plasma"](0.4 + 0.6 * heat)[..., :3]
    opacity = HEAT_OPACITY * heat[..., None]
    return (255 * ((1 - opacity) * grey + opacity * colour)).round().astype(np.uint8)


def _enlarged(tiles: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [n, k, h, w, 3] as [n, H, W, 3]: every pixel a square of side `factor`, the k images side by side."""
    squares = tiles.repeat(factor, 2).repeat(factor, 3)
    parted = np.pad(squares, ((0, 0), (0, 0), (0, 0), (0, HAIR), (0, 0)), constant_values=255)
    n, k, height, width, _ = parted.shape
    return parted.transpose(0, 2, 1, 3, 4).reshape(n, height, k * width, 3)[:, :, :-HAIR]


def _page(title: str, note: str, width: int, height: int):
    """(figure, axes, top): a figure of `width` pixels, axes that count in pixels from the upper left, and the height of
    title and note, under which `height` pixels are free."""
    title = _wrap(title, width / DPI)
    note = textwrap.fill(note, int((width - 2 * GAP) / LETTER))
    note_top = GAP + (title.count("\n") + 1) * 33
    top = note_top + (note.count("\n") + 1) * LINE * bool(note) + GAP + FRAME
    figure = Figure(((width + 0.1) / DPI, (top + height + 0.1) / DPI))  # 0.1: a half pixel less would round down
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(top + height, 0))
    axes.axis("off")
    axes.text(GAP, GAP, title, size=13, weight="bold", va="top")
    axes.text(GAP, note_top, note, va="top")
    return figure, axes, top


def image_sheet(
    images, captions: list[str], columns: int, title: str, enlarge: int | None = None, heat=None, frames=None, note=""
) -> Figure:
    """Images at readable size in a grid, every pixel a crisp square, a caption below each.

    Args:
        images: uint8 [n, h, w], or [n, k, h, w] for tiles of k images side by side under one caption.
        captions: [n], broken into lines that fit.
        enlarge: pixels in the figure for one of an image; None for a readable size.
        heat: as `images`, in [0, 1], laid over them; nan where nothing is.
        frames: [n], the colour around a tile, or None for no frames.
        note: what the reader should know, below the title.
    """
    tiles = images if images.ndim == 4 else images[:, None]
    heat = np.zeros(tiles.shape) if heat is None else heat.reshape(tiles.shape)
    tiles = _enlarged(overlay(tiles, heat), enlarge or max(1, round(SHEET_SIDE / images.shape[-2])))
    n, height, width, _ = tiles.shape
    captions = ["\n".join(textwrap.fill(part, int(width / LETTER)) for part in text.split("\n")) for text in captions]
    lines = max((text.count("\n") + 1 for text in captions), default=0)
    pitch = height + FRAME + HAIR + lines * LINE + GAP
    columns = max(min(columns, n), 1)
    figure, axes, top = _page(title, note, max(columns * (width + GAP) + GAP, 4 * DPI), -(-n // columns) * pitch)
    for i, (tile, text) in enumerate(zip(tiles, captions)):
        x, y = GAP + i % columns * (width + GAP), top + i // columns * pitch
        if frames is not None:
            corner, sides = (x - FRAME, y - FRAME), (width + 2 * FRAME, height + 2 * FRAME)
            axes.add_patch(Rectangle(corner, *sides, color=frames[i], linewidth=0, zorder=-1))
        axes.imshow(tile, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto")
        axes.text(x, y + height + HAIR + FRAME, text, va="top")
    return figure


def grad_cam_sheet(images, heat, labels, probabilities, indices, title: str, columns: int = 3) -> Figure:
    """Each image beside its Grad-CAM map, framed by whether the call at 0.5 is right.

    Args: all of the m images to show: images: uint8 [m, h, w]; heat: [m, h, w] in [0, 1]; labels: [m], 1 for malignant;
        probabilities: [m]; indices: [m], the numbers that the captions give.
    """
    labels, right = np.asarray(labels, bool), (np.asarray(probabilities) >= 0.5) == np.asarray(labels, bool)
    captions = [
        f"image {i}, {'malignant' if label else 'benign'}\nP(malignant) {p:.2f}, {'right' if r else 'wrong'}"
        for i, label, p, r in zip(indices, labels, probabilities, right)
    ]
    pairs, maps = np.stack([images, images], 1), np.stack([np.full_like(heat, np.nan), heat], 1)
    frames = [RIGHT if r else WRONG for r in right]
    note = (
        "The most confident errors (pink frame) and hits (green) at threshold 0.5. Beside each image, in colour, what "
        "raises P(malignant) most (Grad-CAM, each image to its own scale); no colour: nothing does."
    )
    return image_sheet(pairs, captions, columns, title, heat=maps, frames=frames, note=note)


def fold_overview(folds: list[dict], pooled: dict, title: str) -> Figure:
    """AUC and accuracy of each fold, their mean and standard deviation, and the pooled value with its interval.

    Args: folds: `metrics.summary` of each; pooled: `intervals.summary` of all out-of-fold predictions.
    """
    figure, panels = _canvas(title, 6.6, 4.4, 2, sharex=True)
    for axes, name in zip(panels, ("auc", "accuracy")):
        values = np.array([fold[name] for fold in folds], float)  # None, as JSON has it, becomes nan
        mean, std = intervals.mean_std(values)
        low, high = pooled[f"{name}_ci95"]
        axes.plot(values, np.full(len(values), 2), "o", color=MUTED, markersize=8, alpha=0.6, markeredgewidth=0)
        axes.errorbar(mean, 1, xerr=std, fmt="s", color=INK, markersize=7, capsize=4)
        limits = [[pooled[name] - low], [high - pooled[name]]]
        axes.errorbar(pooled[name], 0, xerr=limits, fmt="D", color=MODEL, markersize=7, capsize=4)
        pooled_text = f"{_number(pooled[name])} ({_number(low)} to {_number(high)})"
        for y, text in enumerate([pooled_text, f"{_number(mean)} ± {_number(std)}", f"{len(values)} folds"]):
            axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center_baseline")
        axes.set_yticks([0, 1, 2], ["pooled, 95 % interval", "mean ± std", "folds"])
        axes.set(ylim=(-0.6, 2.6))
        axes.set_title(NAMES[name], weight="bold")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=FAINT)
    return figure


def comparison(differences: dict[str, dict], name_a: str, name_b: str, title: str) -> Figure:
    """Differences of two models with their intervals, and the line where they would be equal.

    Args: differences: from `comparison.paired_bootstrap`, {metric: {"difference", "ci95"}}.
    """
    figure, axes = _canvas(title, 6.6, 1.5 + 0.42 * len(differences))
    axes.axvline(0, color=MUTED, linestyle=":", linewidth=1.5)
    for y, result in enumerate(differences.values()):
        value, (low, high) = result["difference"], result["ci95"]
        axes.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", color=MODEL, markersize=7, capsize=4)
        text = "n/a" if math.isnan(value) else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        axes.text(1.02, y, text.replace("-", "−"), transform=axes.get_yaxis_transform(), va="center_baseline")
    axes.set_yticks(range(len(differences)), [NAMES[name] for name in differences])
    axes.set(ylim=(len(differences) - 0.5, -0.5))
    axes.set_xlabel(textwrap.fill(f"{name_a} minus {name_b}, with 95 % interval", 48))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT)
    return figure


def results(rows: list[tuple[str, bool, dict]], title: str) -> Figure:
    """AUC and accuracy of several results, one below the other.

    Args: rows: (name, ours, {"auc": (value, low, high), "accuracy": …}); low and high are None without an interval.
    """
    figure, panels = _canvas(title, 11, 1.2 + 0.3 * len(rows), 1, 2, sharey=True)
    for axes, metric in zip(panels, ("auc", "accuracy")):
        for y, (_, ours, values) in enumerate(rows):
            value, low, high = values[metric]
            limits = None if low is None else [[value - low], [high - value]]
            colour, marker = (MODEL, "o") if ours else (MUTED, "D")
            axes.errorbar(value, y, xerr=limits, fmt=marker, color=colour, markersize=6, capsize=3)
        axes.set_title(NAMES[metric], weight="bold")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=FAINT)
    panels[0].set_yticks(range(len(rows)), [name for name, *_ in rows])
    panels[0].set(ylim=(len(rows) - 0.5, -0.5))
    return figure


def heat_map(
    lrs,
    wds,
    scores: np.ndarray,
    errors: np.ndarray | None,
    chosen: tuple[int, int],
    best: tuple[int, int],
    title: str,
) -> Figure:
    """Mean score for each learning rate and weight decay, the chosen cell and the best by mean framed.

    Args: lrs: [i]; wds: [j]; scores: [i, j], nan where none; errors: [i, j], standard errors, or None;
        chosen, best: (i, j).
    """
    figure, axes = _canvas(title, max(1.4 + 1.15 * len(wds), 5), 1.8 + 0.75 * len(lrs))
    low, high = np.nanmin(scores), np.nanmax(scores)
    shares = (scores - low) / max(high - low, 1e-12)
    axes.imshow([[_shade(MODEL, share) for share in row] for row in shares], aspect="auto")
    for (i, j), score in np.ndenumerate(scores):
        error = "" if errors is None or np.isnan(score) else f"\n± {_number(float(errors[i, j]))}"
        axes.text(j, i, _number(score) + error, ha="center", va="center")
    frames = {"chosen": (chosen, INK, "-"), "best by mean": (best, CHOSEN, "--")}
    if chosen == best:
        frames = {"chosen, best by mean": (chosen, INK, "-")}
    for name, ((i, j), colour, style) in frames.items():
        frame = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, zorder=3, clip_on=False, label=name)
        frame.set(edgecolor=colour, linestyle=style, linewidth=4)
        axes.add_patch(frame)
    _legend_below(figure, columns=2)
    axes.set_xticks(range(len(wds)), [f"{wd:.2g}" for wd in wds])
    axes.set_yticks(range(len(lrs)), [f"{lr:.2g}" for lr in lrs])
    axes.set(xlabel="weight decay", ylabel="learning rate")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def search_history(scores: list[float | None], title: str, score_name: str = "score") -> Figure:
    """The score of each trial in order, higher is better, with the best so far; None for a trial that was pruned."""
    figure, axes = _canvas(title, 6.4, 4)
    values = np.array([np.nan if score is None else score for score in scores], float)
    trials, pruned = np.arange(len(values)), np.flatnonzero(np.isnan(values))
    best = np.fmax.accumulate(values)
    axes.plot(trials, best, color=INK, drawstyle="steps-post", linewidth=1.5, label="best so far")
    axes.plot(trials, values, "o", color=MODEL, label="trial")
    at_foot = {"transform": axes.get_xaxis_transform(), "label": "pruned trial"}
    axes.plot(pruned, np.full(len(pruned), 0.03), "x", color=MUTED, **at_foot)
    if not np.isnan(best).all():
        axes.set_title(f"best {score_name} {_number(np.nanmax(values))}, trial {np.nanargmax(values)}")
    axes.set(xlabel="trial", ylabel=score_name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend_below(figure, columns=3)
    return figure


def importances(shares: dict[str, float], title: str) -> Figure:
    """What share of the variation among good settings each searched setting explains. shares: {name: 0 to 1}."""
    names, values = list(shares), np.array(list(shares.values()))
    figure, axes = _canvas(title, 6.4, 1.3 + 0.36 * len(names))
    axes.barh(range(len(names)), values, color=MODEL, height=0.6)
    for y, value in enumerate(values):
        axes.annotate(f"{100 * value:.0f} %", (value, y), (5, 0), textcoords="offset points", va="center_baseline")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlim=(0, 1.12 * values.max()), ylim=(len(names) - 0.4, -0.6), xlabel="importance (PED-ANOVA), sum 100 %")
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure
