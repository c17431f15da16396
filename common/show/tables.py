"""Fixed-width tables for people; machines read metrics.json."""

import math

from common import intervals
from common.metrics import NAMES, STANDARD_THRESHOLD

UNDEFINED = {
    "auc": "a class is absent",
    "aupr": "no malignant image",
    "precision": "no image reaches the threshold",
    "recall": "no malignant image",
    "specificity": "no benign image",
    "f1": "no malignant image, and none that reaches the threshold",
}
FIRST = 28  # characters of a table's first column, unless names need more
WHOLE = ("train", "val", "test", "all", "out_of_fold", "elsewhere")  # predictions that are no part of others


def number(value: float, form: str = ".4f") -> str:
    """Four decimals, or n/a for nan."""
    return "n/a" if math.isnan(value) else format(value, form)


def interval(limits) -> str:
    """[.812 .903]: a 95 % interval to three decimals; empty for nan."""
    return "" if math.isnan(limits[0]) else "[" + " ".join(f"{limit:.3f}".removeprefix("0") for limit in limits) + "]"


def with_interval(summary: dict, metric: str, between: str = " ") -> str:
    """0.9012 [.852 .943]: a metric and, where there is one, its interval."""
    limits = summary.get(f"{metric}_ci95", [math.nan])
    return (number(summary[metric]) + between + interval(limits)).strip()


def with_limits(value: float, limits, form: str = ".3f") -> str:
    """0.901 (0.852 to 0.943): a value and its 95 % interval in a sentence or a figure."""
    return number(value, form) if math.isnan(value) else f"{value:{form}} ({limits[0]:{form}} to {limits[1]:{form}})"


def plus_minus(mean: float, std: float, form: str = ".3f") -> str:
    """0.901 ± 0.012: mean and standard deviation of several runs; of one run alone, the mean."""
    return number(mean, form) if math.isnan(std) else f"{mean:{form}} ± {std:.3f}"


def line(name: str, cells, width: int = 14, first: int = FIRST) -> str:
    """One row: a name, then right-aligned cells. first: the width of the name."""
    return f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell in cells)


def first_width(names) -> int:
    """Of the first column of a table, with room for a count of six digits after the longest of the names."""
    return max(FIRST, 6 + max(map(len, names)))


def columns(rows: list[dict]) -> str:
    """Rows with the same keys, which become the header, as wide as the cells; floats with four digits."""
    cells = [[name.replace("_", " ") for name in rows[0]]]
    cells += [[number(v, ".4g") if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells))
    return "\n".join(
        f"{row[0]:<{first}}" + "".join(f"{cell:>{width + 4}}" for cell, width in zip(row[1:], others)) for row in cells
    )


def undefined_notes(summaries: dict[str, dict]) -> list[str]:
    """A sentence for each metric that is n/a somewhere, with the reason."""
    absent = [m for m in UNDEFINED if any(math.isnan(summary[m]) for summary in summaries.values())]
    return [f"n/a: {NAMES[metric]} is undefined where {UNDEFINED[metric]}." for metric in absent]


def metrics_table(summaries: dict[str, dict]) -> str:
    """A row for each named summary of `metrics` or, with intervals, of `intervals`; why something is n/a at the end."""
    first = first_width(summaries)
    lines = [line(f"{'n':>{first}}", NAMES.values())]
    for name, summary in summaries.items():
        lines.append(line(f"{name:<{first - 6}}{summary['n']:>6}", (number(summary[metric]) for metric in NAMES)))
        if "auc_ci95" in summary:
            limits = (interval(summary[f"{metric}_ci95"]) for metric in NAMES)
            lines.append(line("  95 % interval", limits, first=first))
    return "\n".join(lines + undefined_notes(summaries))


def spread_table(kind: str, scores: list[dict]) -> str:
    """`metrics.summary` of each fold, or of each repeat, then their mean and standard deviation. kind: the key in
    `scores` that numbers them."""
    spread = (intervals.mean_std([score[metric] for score in scores]) for metric in NAMES)
    means = line(f"mean ± std over {kind}s", (plus_minus(*mean_std) for mean_std in spread))
    return metrics_table({f"{kind} {score[kind]}": score for score in scores}) + "\n" + means


def operating_rates(name: str, summary: dict) -> str:
    """What a threshold gives in a clinic's words: sensitivity, specificity, PPV and NPV with their intervals."""
    sensitivity, specificity, ppv = (with_interval(summary, name) for name in ("recall", "specificity", "precision"))
    npv = with_interval(summary["benign"], "precision")
    return f"{name}: sensitivity {sensitivity}, specificity {specificity}, PPV {ppv}, NPV {npv}"


def promise(summary: dict) -> str:
    """Sensitivity and specificity in a sentence."""
    return f"sensitivity {with_interval(summary, 'recall')} and specificity {with_interval(summary, 'specificity')}"


def scores_text(scores: dict, label: str) -> str:
    """The tables of `scoring.evaluate_splits`, the number that matters last."""
    splits, point, calibration = scores["splits"], scores["operating_point"], scores["calibration"]
    last = [name for name in splits if name in WHOLE][-1]
    phantom, first = "PHANTOM data, " if label.startswith("PHANTOM") else "", first_width(splits)
    calibrated = [
        f"{phantom}calibration, temperature {calibration['temperature']:.3f} fitted on {calibration['fitted_on']}",
        line("", ["Brier", "95 %", "ECE", "95 %"], first=first),
    ]
    for name in splits:
        found = calibration[name]
        cells = number(found["brier"]), interval(found["brier_ci95"]), number(found["ece"]), interval(found["ece_ci95"])
        calibrated.append(line(name, cells, first=first))
    auc, accuracy = (with_interval(splits[last], metric) for metric in ("auc", "accuracy"))
    return "\n\n".join(
        [
            f"{label}, malignant is positive",
            f"{phantom}threshold {STANDARD_THRESHOLD}\n{metrics_table(splits)}",
            f"{phantom}operating point {point['threshold']:.4f}: {point['rule']}\n{metrics_table(point['splits'])}\n"
            + operating_rates(last, point["splits"][last]),
            "\n".join([*calibrated, "ECE: 10 bins of equal mass"]),
            f"{label}: {last} AUC {auc}, accuracy {accuracy} on {splits[last]['n']} images",
        ]
    )
