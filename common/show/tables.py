"""Fixed-width tables for people; machines read metrics.json."""

import math
from collections.abc import Iterable

from common import intervals
from common.calibration import Calibration
from common.metrics import NAMES, STANDARD_THRESHOLD

UNDEFINED = {
    "auc": "a class is absent",
    "aupr": "there is no malignant image",
    "precision": "no image reaches the threshold",
    "recall": "there is no malignant image",
    "specificity": "there is no benign image",
    "f1": "there is no malignant image, and no image reaches the threshold",
}
FIRST = 28  # characters of a table's first column, unless names need more


def number(value: float, form: str = ".4f") -> str:
    """Return a number as text, with four decimals by default; "n/a" for nan."""
    return "n/a" if math.isnan(value) else format(value, form)


def interval(limits) -> str:
    """Return a 95 % interval as text with three decimals, "[.812 .903]"; "" for nan."""
    return "" if math.isnan(limits[0]) else "[" + " ".join(f"{limit:.3f}".removeprefix("0") for limit in limits) + "]"


def with_interval(summary: dict, metric: str, between: str = " ") -> str:
    """Return a metric of a summary as text, with its interval if known: 0.9012 [.852 .943]."""
    limits = summary.get(f"{metric}_ci95", [math.nan])
    return (number(summary[metric]) + between + interval(limits)).strip()


def with_limits(value: float, limits, form: str = ".3f") -> str:
    """Return a value with its 95 % interval for a sentence or figure: 0.901 (0.852 to 0.943). nan becomes n/a."""
    return number(value, form) if math.isnan(value) else f"{value:{form}} ({limits[0]:{form}} to {limits[1]:{form}})"


def plus_minus(mean: float, std: float, form: str = ".3f") -> str:
    """Return mean and standard deviation of several runs as text: 0.901 ± 0.012. If std is nan, the mean alone."""
    return number(mean, form) if math.isnan(std) else f"{mean:{form}} ± {std:.3f}"


def line(name: str, cells, width: int = 14, first: int = FIRST) -> str:
    """Return a row of a table: a name, then right-aligned cells. Widths in characters; first: of the name."""
    return f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell in cells)


def first_width(names) -> int:
    """Return the width of the first column: room for the longest name and a count of six digits."""
    return max(FIRST, 6 + max(map(len, names)))


def columns(rows: list[dict]) -> str:
    """Return a table of rows with the same keys, which become the header. Floats have four digits."""
    cells = [[name.replace("_", " ") for name in rows[0]]]
    cells += [[number(v, ".4g") if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells))
    return "\n".join(
        f"{row[0]:<{first}}" + "".join(f"{cell:>{width + 4}}" for cell, width in zip(row[1:], others)) for row in cells
    )


def undefined_notes(summaries: dict[str, dict]) -> list[str]:
    """Return a sentence for each metric that is n/a in a summary, with the reason."""
    absent = [m for m in UNDEFINED if any(math.isnan(summary[m]) for summary in summaries.values())]
    return [f"n/a: {NAMES[metric]} is undefined where {UNDEFINED[metric]}." for metric in absent]


def metrics_table(summaries: dict[str, dict]) -> str:
    """Return a table with a row for each named summary of `metrics` or `intervals`, and reasons for n/a at the end."""
    first = first_width(summaries)
    lines = [line(f"{'n':>{first}}", NAMES.values())]
    for name, summary in summaries.items():
        lines.append(line(f"{name:<{first - 6}}{summary['n']:>6}", (number(summary[metric]) for metric in NAMES)))
        if "auc_ci95" in summary:
            limits = (interval(summary[f"{metric}_ci95"]) for metric in NAMES)
            lines.append(line("  95 % interval", limits, first=first))
    return "\n".join(lines + undefined_notes(summaries))


def spread_table(kind: str, scores: list[dict]) -> str:
    """Return a table of `metrics.summary` of each fold or repeat, then mean and standard deviation.

    Args: kind: "fold" or "repeat", the key in `scores` with the number of each.
    """
    spread = (intervals.mean_std([score[metric] for score in scores]) for metric in NAMES)
    means = line(f"mean ± std over {kind}s", (plus_minus(*mean_std) for mean_std in spread))
    return metrics_table({f"{kind} {score[kind]}": score for score in scores}) + "\n" + means


def operating_rates(name: str, summary: dict) -> str:
    """Return a sentence on a threshold: sensitivity, specificity, PPV and NPV, with their intervals."""
    sensitivity, specificity, ppv = (with_interval(summary, name) for name in ("recall", "specificity", "precision"))
    npv = with_interval(summary["benign"], "precision")
    return f"{name}: sensitivity {sensitivity}, specificity {specificity}, PPV {ppv}, NPV {npv}"


def rates(entry: dict) -> str:
    """Return sensitivity and specificity as a part of a sentence."""
    return f"sensitivity {with_interval(entry, 'recall')} and specificity {with_interval(entry, 'specificity')}"


def expected(calibration: Calibration) -> str:
    """Return a sentence on what the threshold achieves on images that did not choose it; "" if unknown."""
    if not calibration.achieved_together:
        return ""
    how = "cross-validation within the images that chose the threshold"
    if calibration.chosen_on["hospital_left_out"]:
        how = "each hospital with the threshold that the others choose"
    how = calibration.achieved_together.get("how", how)
    return f"Expected at this threshold: {rates(calibration.achieved_together)} ({how})."


def name_of(entry: dict, several: bool = True) -> str:
    """Return the name of an entry of "results". several: whether the name includes the hospital.

    Examples: "test", "clean test", "test, busi", "test, device GE", "test, per patient".
    """
    name = entry["on"].replace("_", "-")
    if "by" in entry:
        name += "".join(f", {column} {value}" for column, value in entry["by"].items())
    elif entry["subset"] == "boxed":
        name += ", images with a box"
    elif entry["subset"] != "all":
        name = f"{entry['subset']} {name}"
    name += f", {entry['hospital']}" if several and entry["hospital"] != "all" else ""
    name += ", boxes given" if entry.get("boxes") == "given" else ""
    return name + (", per patient" if entry["unit"] == "patient" else "")


def named(results: list[dict], threshold_name: str) -> dict[str, dict]:
    """Return {name: entry} of the results at a named threshold.

    If images of several hospitals are scored together, a single hospital appears only with all of its images.
    """
    several = len({entry["hospital"] for entry in results}) > 1
    together = {entry["on"] for entry in results if entry["hospital"] == "all"}
    return {
        name_of(entry, several): entry
        for entry in results
        if entry["threshold_name"] == threshold_name
        and (entry["on"] not in together or "all" in (entry["hospital"], entry["subset"]))
    }


def main_entry(results: list[dict]) -> dict:
    """Return the entry that matters most: the last predictions, all of their images, at the standard threshold."""
    last = results[-1]["on"]
    return next(entry for entry in results if entry["on"] == last and entry["subset"] == "all")


def calibration_table(entries: dict[str, dict]) -> str:
    """Return a table of Brier score, ECE and calibration in the large of named entries."""
    first = first_width(entries)
    lines = [line("", ["Brier", "95 %", "ECE", "95 %", "in the large", "95 %"], first=first)]
    for name, entry in entries.items():
        cells = []
        for measure in ("brier", "ece", "calibration_in_the_large"):
            cells += [
                number(entry[measure], "+.4f" if measure[0] == "c" else ".4f"),
                interval(entry[f"{measure}_ci95"]),
            ]
        lines.append(line(name, cells, 16, first))
    explained = "ECE: 10 bins with equally many images. In the large: mean probability minus share of malignant images."
    return "\n".join([*lines, explained])


def at_operating_point(results: list[dict], calibration: Calibration) -> list[str]:
    """Return sentences on the operating point: what to expect, and what it gives on the main images, all and clean."""
    main = main_entry(results)
    alike = {name: main[name] for name in ("on", "hospital", "unit")} | {"threshold_name": "operating point"}
    shown = [entry for entry in results if alike.items() <= entry.items() and entry["subset"] in ("all", "clean")]
    shown = [entry for entry in shown if entry["subset"] == "all" or entry["n"] < main["n"]]
    measured = [f"Measured on {operating_rates(name_of(entry, False), entry)}." for entry in shown]
    return [*filter(None, [expected(calibration)]), *measured]


def recalibration_text(fitted, was: Calibration, now: Calibration, label: str) -> str:
    """Return a table of what a recalibration changes: the file as it was, and what to expect on new images.

    Args: fitted: a `recalibration.Fitted`; was, now: calibration before and after; label: name of the images.
    """
    names = {"recall": "sensitivity", "specificity": "specificity", "brier": "Brier score", "ece": "ECE"}
    names |= {"calibration_in_the_large": "mean probability minus share"}
    about = now.chosen_on
    lines = [f"{label}: {about['n']} {about['unit']}s, {about['malignant']} of them malignant"]
    lines.append(line("", ["before", "expected on new images"], 32, 32))
    lines.append(line("threshold", [f"{was.threshold:.4f}", f"{now.threshold:.4f}"], 32, 32))
    for key, name in names.items():
        lines.append(line(name, [with_interval(measured, key) for measured in (fitted.before, fitted.after)], 32, 32))
    lines.append(f"temperature {now.temperature:.3f}, offset {now.offset:+.3f}\n{now.threshold_rule}")
    return "\n".join(lines)


def results_text(
    results: list[dict], calibration: Calibration, label: str, synthetic: bool, notes: Iterable[str] = ()
) -> str:
    """Return the tables of "results" and notes. The last line is the number that matters most.

    Args: label: of the images; synthetic: whether some images are phantoms.
    """
    standard, at_chosen = (named(results, name) for name in ("standard", "operating point"))
    main = main_entry(results)
    phantom = "PHANTOM data, " if synthetic else ""
    auc, accuracy = (with_interval(main, metric) for metric in ("auc", "accuracy"))
    return "\n\n".join(
        [
            f"{label}, malignant is positive",
            f"{phantom}threshold {STANDARD_THRESHOLD}\n{metrics_table(standard)}",
            "\n".join(
                [
                    f"{phantom}operating point {calibration.threshold:.4f}: {calibration.threshold_rule}",
                    metrics_table(at_chosen),
                    *at_operating_point(results, calibration),
                ]
            ),
            "\n".join(
                [
                    f"{phantom}temperature {calibration.temperature:.3f}, offset {calibration.offset:+.3f}",
                    calibration_table(standard),
                ]
            ),
            *filter(None, ["\n".join(notes)]),
            f"{label}: {main['on'].replace('_', '-')} AUC {auc}, accuracy {accuracy} on {main['n']} {main['unit']}s",
        ]
    )
