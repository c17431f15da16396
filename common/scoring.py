"""Scoring predictions: every metric of every part of the images, with intervals, as entries that say what they are."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from common import calibration, intervals, metrics
from common.calibration import Calibration
from common.data import Images
from common.errors import UserError
from common.folds import assign_folds
from common.thresholds import Rule

CROSS_FIT_FOLDS = 5
ALL = "all"  # hospitals together; also the subset of all images
RATES = ("recall", "specificity", "precision")  # that a promise gives


@dataclass(frozen=True)
class Scored:
    """Predictions of some images.

    on: what they are called, such as "test"; probabilities: calibrated, [n]; groups: [n], the same for images that are
    drawn together in an interval; subsets: {name: bool [n]}, which are scored by themselves too; trained_on: whether
    the predicting model was trained on images among them; chose: what the images chose, such as "epoch"; unit: what a
    case is, "image" or "patient"; by: {subset: {column: value}}, of subsets that are the images of a value; boxes:
    "found" or "given", by which boxes the model looked at lesions; "" where it did not look for them.
    """

    on: str
    images: Images
    probabilities: np.ndarray
    groups: np.ndarray
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    trained_on: bool = False
    chose: tuple[str, ...] = ()
    unit: str = "image"
    by: dict[str, dict[str, str]] = field(default_factory=dict)
    boxes: str = ""

    @property
    def labels(self) -> np.ndarray:
        """[n], 1 for malignant."""
        return self.images.labels

    def resample_counts(self, resamples: int) -> np.ndarray:
        """`intervals.resample_counts` of whole groups: [resamples, n]."""
        return intervals.resample_counts(self.labels, self.groups, resamples)

    def only(self, chosen: np.ndarray) -> "Scored":
        """Some of the images, without subsets. chosen: bool [n]."""
        return replace(
            self,
            images=self.images[chosen],
            probabilities=self.probabilities[chosen],
            groups=self.groups[chosen],
            subsets={},
        )

    def per_patient(self) -> "Scored":
        """Each patient once: by the image of the highest probability, malignant if any image is. Images of unknown
        patients are left out."""
        patients = np.array(self.images.patients, str)
        known = np.flatnonzero(patients != "")
        _, patient_of = np.unique(patients[known], return_inverse=True)
        malignant = (np.bincount(patient_of, self.labels[known]) > 0).astype(int)
        by_patient = np.lexsort((-self.probabilities[known], patient_of))  # and the highest probability first
        first = known[by_patient[np.searchsorted(patient_of[by_patient], np.arange(len(malignant)))]]
        chosen, subsets = self.only(first), {name: mask[first] for name, mask in self.subsets.items()}
        images = replace(chosen.images, table=chosen.images.table.assign(label=malignant))
        return replace(chosen, images=images, subsets=subsets, unit="patient")


def by_boxes(scored: Scored, given: np.ndarray | None) -> list[Scored]:
    """The predictions by found boxes; and by given ones, of the images that have one, where a model looks for lesions.
    given: probabilities of the images with a box, when the model looks there; None of other views."""
    if given is None:
        return [scored]
    boxed = scored.images.boxed
    subsets = scored.subsets | ({} if boxed.all() else {"boxed": boxed})
    return [
        replace(scored, subsets=subsets, boxes="found"),
        replace(scored.only(boxed), probabilities=given, boxes="given"),
    ]


def by_hospital(images: Images) -> dict[str, np.ndarray]:
    """{name: bool [n]}: all images together, and each hospital where there are several."""
    names = list(dict.fromkeys(images.hospitals))
    together = {names[0] if len(names) == 1 else ALL: np.ones(len(images), bool)}
    return together | ({name: images.hospitals == name for name in names} if len(names) > 1 else {})


def parts(scored: Scored) -> list[tuple[dict, Scored]]:
    """The parts of predictions that are scored by themselves, each with the fields that say what it is: all hospitals
    together and each of several, all images and each subset, images and patients where there are fewer patients."""
    found = []
    for hospital, of_hospital in by_hospital(scored.images).items():
        for subset, of_subset in ({ALL: np.ones(len(scored.labels), bool)} | scored.subsets).items():
            if not (of_hospital & of_subset).any():
                continue
            part = scored.only(of_hospital & of_subset)
            part = replace(part, trained_on=False, chose=()) if subset == "clean" else part
            about: dict = {"on": scored.on, "hospital": hospital, "unit": scored.unit, "subset": subset}
            about |= {"by": scored.by[subset]} if subset in scored.by else {}
            about |= {"boxes": scored.boxes} if scored.boxes else {}
            found.append((about, part))
            patients = [patient for patient in part.images.patients if patient]
            if subset == ALL and len(set(patients)) < len(patients):
                found.append((about | {"unit": "patient"}, part.per_patient()))
    return found


def evaluate(scored: list[Scored], chosen: Calibration, resamples: int = 2000) -> list[dict]:
    """The "results" of metrics.json: an entry for each part of the predictions at each threshold, with every metric,
    its interval, and fields that say what the entry is about."""
    results = []
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": chosen.threshold}
    for about, part in (pair for one in scored for pair in parts(one)):
        shown, counts = (part.labels, part.probabilities), part.resample_counts(resamples)
        at = intervals.with_intervals(partial(metrics.summaries, *shown, thresholds.values()), counts)
        calibrated = intervals.with_intervals(partial(calibration.summary, *shown), counts)
        for name, threshold in thresholds.items():
            said = about | {"threshold": threshold, "threshold_name": name}
            said |= {"held_out": not (part.trained_on or part.chose), "chose": list(part.chose)}
            results.append(said | at[threshold] | calibrated)
    return results


def splits(results: list[dict]) -> dict[str, dict]:
    """The "splits" of metrics.json: {"test": metrics of all images at the standard threshold, "clean_test": …}."""
    found = {}
    for entry in results:
        whole = entry["unit"] == results[0]["unit"] and entry["threshold_name"] == "standard"
        name = entry["on"] if entry["subset"] == ALL else f"{entry['subset']}_{entry['on']}"
        if whole and name not in found:  # the first of a name is of all hospitals
            found[name] = entry
    return found


def summary(results: list[dict], chosen: Calibration) -> dict:
    """What metrics.json says of predictions: "splits", for people, "results", for programs, and the calibration."""
    return {"splits": splits(results), "results": results, "calibration": asdict(chosen)}


def score_test(images: Images, of_test: np.ndarray, probabilities: np.ndarray) -> Scored:
    """Predictions of test. The subset "clean" shares no group with the other images, which trained or chose.

    Args: images: test and all others; of_test: bool [n]; probabilities: of test, in order.
    """
    own, others = images.groups[of_test], images.groups[~of_test]
    return Scored("test", images[of_test], probabilities, own, {"clean": ~np.isin(own, others)})


def notes(scored: list[Scored], results: list[dict]) -> list[str]:
    """What a reader of the results must know, in sentences."""
    return flattered(scored) + none_clean(scored) + below_chance(results)


def flattered(scored: list[Scored]) -> list[str]:
    """A sentence for each of the predictions whose images trained the model, or chose something."""
    said = []
    for one in scored:
        images = "images" if one.on == ALL else f"{one.on.replace('_', '-')} images"
        if one.trained_on:
            clean = " Look at the clean images." * bool(one.subsets.get("clean", np.zeros(1)).any())
            said.append(f"The model was trained on some of these images, so their figures are too good.{clean}")
        elif one.chose:
            said.append(f"These {images} chose: {', '.join(one.chose)}. So their figures are slightly optimistic.")
    return list(dict.fromkeys(said))  # those by found and by given boxes are of the same images


def none_clean(scored: list[Scored]) -> list[str]:
    """A sentence for each of the predictions of which no image is clean."""
    return [
        f"No {one.on} image is clean. Each shares a group with an image of training or validation."
        for one in scored
        if "clean" in one.subsets and not one.subsets["clean"].any()
    ]


def below_chance(results: list[dict]) -> list[str]:
    """A sentence for each part where the model orders the images the wrong way round."""
    return [
        f"The AUC on {entry['on']} ({entry['hospital']}) and its interval are below 0.5. The labels may have the "
        "opposite meaning: 1 must mean malignant."
        for entry in results
        if entry["auc_ci95"][1] < 0.5
        and (entry["unit"], entry["subset"], entry["threshold_name"]) == ("image", ALL, "standard")
    ]


def calibrate(
    images: Images, logits, groups, rule: Rule, on: str, by_hospital: bool = False, found_threshold: float = 0.0
) -> Calibration:
    """Fit temperature and offset and choose the operating point on images not trained on, never on test, and measure by
    cross-validation inside these images what such a choice achieves.

    Args:
        logits: [n], not calibrated; groups: [n], the same for images that belong together.
        rule: of the threshold.
        on: "val" or "out_of_fold".
        by_hospital: the model of each image has seen no image of its hospital.
        found_threshold: of `looks.choose_found_threshold`.
    """
    labels, hospitals = images.labels, images.hospitals
    parts = hospitals if by_hospital else None
    chosen = calibration.choose(labels, logits, rule, parts)
    names = list(dict.fromkeys(hospitals))
    chosen_on = {"on": on, "hospitals": names, "hospital_left_out": by_hospital}
    chosen_on |= {"n": len(labels), "malignant": int(labels.sum())}
    achieved = measure(images, logits, groups, rule, parts)
    return Calibration(*chosen, rule.describe(describe_chosen_on(chosen_on)), chosen_on, achieved, found_threshold)


def describe_chosen_on(chosen_on: dict) -> str:
    """The images that chose a threshold, in words."""
    names = {"val": "the validation images", "out_of_fold": "out-of-fold predictions"}
    said = f"{names[chosen_on['on']]} of {' + '.join(chosen_on['hospitals'])}"
    return f"{said}, in each hospital, by models that have not seen it" if chosen_on["hospital_left_out"] else said


def measure(images: Images, logits, groups, rule: Rule, parts=None) -> list[dict]:
    """What a choice of calibration and threshold on such images achieves on others: rates with intervals, of all
    hospitals together and of each of several; [] where there are too few images to tell.
    parts: the hospitals where each is left out in turn, else None."""
    labels = images.labels
    try:
        fold = assign_folds(labels, groups, CROSS_FIT_FOLDS, 0) if parts is None else parts
    except UserError:  # a class has too few groups
        return []
    _, flagged = calibration.cross_fit(labels, logits, rule, fold, parts)
    found = []
    for name, own in by_hospital(images).items():
        counts = intervals.resample_counts(labels[own], groups[own])
        rates = intervals.with_intervals(partial(metrics.rates, labels[own], flagged[own]), counts)
        kept = {key: value for key, value in rates.items() if key.removesuffix("_ci95") in RATES}
        about = {"hospital": name, "n": int(own.sum()), "malignant": int(labels[own].sum()), "held_out": True}
        found.append(about | kept)
    return found
