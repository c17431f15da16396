"""Figures of a search of settings, for tune.py. In the style of figures.py."""

from math import isnan

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from common.show.figures import BELOW, CHOSEN, INK, MODEL, MUTED, TINT, canvas, name_cells, name_rows, tints_of


def heat_map(cells: dict, chosen, best, title: str) -> Figure:
    """Draw the mean score of each learning rate and weight decay, and mark the chosen cell and the best cell.

    Args: cells: {(lr, wd): (score, standard error)}, nan if unknown; chosen, best: (lr, wd).
    """
    lrs, wds = (sorted(set(values)) for values in zip(*cells))
    figure, axes = canvas(title, max(1.4 + 1.15 * len(wds), 5), 1.8 + 0.75 * len(lrs))
    axes.imshow([[cells[lr, wd][0] for wd in wds] for lr in lrs], cmap=tints_of(MODEL), alpha=TINT, aspect="auto")
    for (lr, wd), (score, error) in cells.items():
        text = "n/a" if isnan(score) else f"{score:.3f}\n± {error:.3f}"
        axes.text(wds.index(wd), lrs.index(lr), text, ha="center", va="center")
    frames = {"chosen": (chosen, INK, "-"), "best by mean": (best, CHOSEN, "--")}
    if chosen == best:
        frames = {"chosen, best by mean": (chosen, INK, "-")}
    for name, ((lr, wd), colour, line) in frames.items():
        corner = wds.index(wd) - 0.5, lrs.index(lr) - 0.5
        frame = axes.add_patch(Rectangle(corner, 1, 1, fill=False, zorder=3, clip_on=False, label=name))
        frame.set(edgecolor=colour, linestyle=line, linewidth=4)
    figure.legend(loc=BELOW, ncols=2)
    name_cells(axes, [f"{wd:.2g}" for wd in wds], [f"{lr:.2g}" for lr in lrs])
    axes.set(xlabel="weight decay", ylabel="learning rate")
    return figure


def search_history(aucs: list[float | None], title: str) -> Figure:
    """Draw the AUC of each trial in order, and the best so far. aucs: None if pruned."""
    figure, axes = canvas(title, 6.4, 4)
    values = np.array(aucs, float)
    trials, pruned = np.arange(len(values)), np.flatnonzero(np.isnan(values))
    best = np.fmax.accumulate(values)
    axes.plot(trials, best, color=INK, drawstyle="steps-post", linewidth=1.5, label="best so far")
    axes.plot(trials, values, "o", color=MODEL, label="trial")
    foot = np.full(len(pruned), 0.03), "x"
    axes.plot(pruned, *foot, color=MUTED, transform=axes.get_xaxis_transform(), label="pruned trial")
    if not np.isnan(best).all():
        axes.set_title(f"best AUC {np.nanmax(values):.3f}, trial {np.nanargmax(values)}")
    axes.set(xlabel="trial", ylabel="AUC")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc=BELOW, ncols=3)
    return figure


def importances(shares: dict[str, float], title: str) -> Figure:
    """Draw the share of the variation among good settings that each setting explains. shares: {name: 0 to 1}."""
    names, values = list(shares), np.array(list(shares.values()))
    figure, axes = canvas(title, 6.4, 1.3 + 0.36 * len(names))
    bars = axes.barh(range(len(names)), values, color=MODEL, height=0.6)
    axes.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=5)
    name_rows(axes, [name.replace("_", " ") for name in names])
    axes.set(xlim=(0, 1.12 * values.max()), xticks=[], xlabel="importance (PED-ANOVA), sum 100 %")
    axes.spines["bottom"].set_visible(False)
    return figure
