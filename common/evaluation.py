"""Scoring predictions: whole and clean splits, at the standard threshold and at the operating point."""

from dataclasses import dataclass

import numpy as np

from common import calibration, intervals, tables, twins
from common.data import Source, Split

STANDARD_THRESHOLD = 0.5


@dataclass(frozen=True)
class Scored:
    """Predictions of a split: labels [n], 1 for malignant; calibrated probabilities [n]; and, where it matters, `clean`
    [n]: the image has no near-duplicate in another split."""

    labels: np.ndarray
    probabilities: np.ndarray
    clean: np.ndarray | None = None

    def parts(self, name: str) -> dict[str, "Scored"]:
        """{name: all of it, "clean_<name>": the clean images}, the latter where there are such."""
        if self.clean is None or not self.clean.any():
            return {name: self}
        return {name: self, f"clean_{name}": Scored(self.labels[self.clean], self.probabilities[self.clean])}


def clean_mask(split: Split, *others: Split) -> np.ndarray:
    """Which images of a split share no group of near-duplicates with an image of another split: bool [n]."""
    groups = twins.find_groups(np.concatenate([split.images, *(other.images for other in others)]))
    return ~np.isin(groups[: len(split)], groups[len(split) :])


def calibration_summary(labels, probabilities, resamples: int, seed: int) -> dict:
    """Brier score and expected calibration error, each with its bootstrap interval."""
    counts = intervals.resample_counts(labels, resamples, seed)
    drawn = [np.repeat(np.arange(len(labels)), row) for row in counts.astype(int)]
    measures = {"brier": calibration.brier, "ece": calibration.expected_calibration_error}
    summary: dict = {}
    for name, measure in measures.items():
        value = measure(labels, probabilities)
        resampled = np.array([measure(labels[index], probabilities[index]) for index in drawn])
        summary |= {name: value, f"{name}_ci95": intervals.percentile_interval(value, resampled)}
    return summary


def report(scored: dict[str, Scored], chosen: calibration.Calibration, resamples: int = 2000, seed: int = 0) -> dict:
    """Every metric of the named predictions, with intervals: the "splits", "operating_point" and "calibration" of
    metrics.json.

    "splits" uses the standard threshold 0.5, "operating_point" the chosen one, "calibration" none.
    """
    parts = {name: part for split, whole in scored.items() for name, part in whole.parts(split).items()}

    def at(threshold: float) -> dict:
        return {
            name: intervals.summary(part.labels, part.probabilities, threshold, resamples, seed)
            for name, part in parts.items()
        }

    return {
        "splits": at(STANDARD_THRESHOLD),
        "operating_point": {
            "threshold": chosen.threshold,
            "rule": chosen.threshold_rule,
            "splits": at(chosen.threshold),
        },
        "calibration": {"temperature": chosen.temperature, "fitted_on": chosen.fitted_on}
        | {name: calibration_summary(part.labels, part.probabilities, resamples, seed) for name, part in parts.items()},
    }


def report_text(report: dict, source: Source) -> str:
    """The tables of a `report`, the number that matters last."""
    point, splits = report["operating_point"], report["splits"]
    last = [name for name in splits if not name.startswith("clean_")][-1]
    headline = splits[last]
    return "\n\n".join(
        [
            f"{source.label}, malignant is positive\n\nthreshold {STANDARD_THRESHOLD}\n{tables.metrics_table(splits)}",
            f"operating point {point['threshold']:.4f}: {point['rule']}\n{tables.metrics_table(point['splits'])}\n"
            + tables.operating_rates(last, point["splits"][last]),
            f"calibration, temperature {report['calibration']['temperature']:.3f} fitted on "
            f"{report['calibration']['fitted_on']}\n{tables.calibration_table(report['calibration'])}",
            f"{source.label}: {last} AUC {tables.with_interval(headline, 'auc')}, accuracy "
            f"{tables.with_interval(headline, 'accuracy')} on {headline['n']} images",
        ]
    )
