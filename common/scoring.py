"""Score predictions: every metric of every part of the images, with intervals, as entries of metrics.json."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from common import calibration, intervals, metrics
from common.calibration import CHOSEN, Calibration
from common.data import Images
from common.errors import UserError
from common.folds import assign_folds
from common.thresholds import Rule

CROSS_FIT_FOLDS = 5
ALL = "all"  # all hospitals together, and the subset of all images
RATES = ("recall", "specificity", "precision")  # rates in `Calibration.achieved`


@dataclass(frozen=True)
class Scored:
    """Predictions of some images.

    on: the name of the images, such as "test".
    probabilities: calibrated P(malignant), [n].
    groups: [n], the same value for images that the bootstrap draws together.
    subsets: {name: bool [n]}, images that also get separate results.
    trained_on: whether the predicting model was trained on each image: bool [n], or one value for all.
    choosing: whether each image chose something for the model: bool [n], or one value for all.
    chose: what the choosing images chose, such as "epoch".
    unit: what a case is, "image" or "patient".
    by: {subset: {column: value}}, for the subsets with one value of a column.
    boxes: "found" or "given" if the images are scored with both kinds of boxes; otherwise "".
    """

    on: str
    images: Images
    probabilities: np.ndarray
    groups: np.ndarray
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    trained_on: np.ndarray | bool = False
    choosing: np.ndarray | bool = False
    chose: tuple[str, ...] = ()
    unit: str = "image"
    by: dict[str, dict[str, str]] = field(default_factory=dict)
    boxes: str = ""

    @property
    def labels(self) -> np.ndarray:
        """Labels, uint8 [n], 1 for malignant."""
        return self.images.labels

    def resample_counts(self, resamples: int) -> np.ndarray:
        """Return `intervals.resample_counts` of the groups: int16 [resamples, n]."""
        return intervals.resample_counts(self.labels, self.groups, resamples)

    def only(self, chosen: np.ndarray) -> "Scored":
        """Return the predictions of some images, without subsets. chosen: bool [n], or indices."""
        n = len(self.labels)
        return replace(
            self,
            images=self.images[chosen],
            probabilities=self.probabilities[chosen],
            groups=self.groups[chosen],
            subsets={},
            trained_on=np.broadcast_to(self.trained_on, n)[chosen],
            choosing=np.broadcast_to(self.choosing, n)[chosen],
        )

    def per_patient(self) -> "Scored":
        """Return one case for each patient: the image with the highest probability.

        A patient is malignant, trained the model, or chose something if any image of the patient did. Images of unknown
        patients do not count.
        """
        patients = np.array(self.images.patients, str)
        known = np.flatnonzero(patients != "")
        _, patient_of = np.unique(patients[known], return_inverse=True)

        def of_any(image: np.ndarray | bool) -> np.ndarray:
            return np.bincount(patient_of, np.broadcast_to(image, len(patients))[known]) > 0

        malignant = of_any(self.labels).astype(int)
        by_patient = np.lexsort((-self.probabilities[known], patient_of))  # by patient, then by falling probability
        first = known[by_patient[np.searchsorted(patient_of[by_patient], np.arange(len(malignant)))]]
        chosen, subsets = self.only(first), {name: mask[first] for name, mask in self.subsets.items()}
        images = replace(chosen.images, table=chosen.images.table.assign(label=malignant))
        trained_on, choosing = of_any(self.trained_on), of_any(self.choosing)
        return replace(chosen, images=images, subsets=subsets, unit="patient", trained_on=trained_on, choosing=choosing)


def by_boxes(scored: Scored, given: np.ndarray | None) -> list[Scored]:
    """Return the predictions by found boxes and, if the model looks for lesions, the predictions by given boxes.

    Args: given: probabilities [boxed] of the images with a box, when the model looks at the box; None for other views.
    """
    if given is None:
        return [scored]
    boxed = scored.images.boxed
    subsets = scored.subsets | ({} if boxed.all() else {"boxed": boxed})
    return [
        replace(scored, subsets=subsets, boxes="found"),
        replace(scored.only(boxed), probabilities=given, boxes="given"),
    ]


def by_hospital(images: Images) -> dict[str, np.ndarray]:
    """Return {name: bool [n]}: all hospitals together, and each hospital if there are several."""
    names = list(dict.fromkeys(images.hospitals))
    together = {names[0] if len(names) == 1 else ALL: np.ones(len(images), bool)}
    return together | ({name: images.hospitals == name for name in names} if len(names) > 1 else {})


def parts(scored: Scored) -> list[tuple[dict, Scored]]:
    """Return the parts of predictions that get separate results, each with the fields that describe the part.

    The parts are all hospitals together and each hospital, all images and each subset, and patients if there are fewer
    patients than images.
    """
    found = []
    for hospital, of_hospital in by_hospital(scored.images).items():
        for subset, of_subset in ({ALL: np.ones(len(scored.labels), bool)} | scored.subsets).items():
            if not (of_hospital & of_subset).any():
                continue
            part = scored.only(of_hospital & of_subset)
            about: dict = {"on": scored.on, "hospital": hospital, "unit": scored.unit, "subset": subset}
            about |= {"by": scored.by[subset]} if subset in scored.by else {}
            about |= {"boxes": scored.boxes} if scored.boxes else {}
            found.append((about, part))
            patients = [patient for patient in part.images.patients if patient]
            if subset == ALL and len(set(patients)) < len(patients):
                found.append((about | {"unit": "patient"}, part.per_patient()))
    return found


def score_parts(scored: list[Scored], chosen: Calibration, resamples: int = 2000) -> list[dict]:
    """Return the "results" of metrics.json: an entry for each part of the predictions at each threshold.

    An entry has every metric, its interval, and fields that describe the part.
    """
    results = []
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": chosen.threshold}
    for about, part in (pair for one in scored for pair in parts(one)):
        shown, counts = (part.labels, part.probabilities), part.resample_counts(resamples)
        at = intervals.with_intervals(partial(metrics.summaries, *shown, thresholds.values()), counts)
        calibrated = intervals.with_intervals(partial(calibration.summary, *shown), counts)
        for name, threshold in thresholds.items():
            said = about | {"threshold": threshold, "threshold_name": name}
            said |= {"held_out": not np.any(part.trained_on | part.choosing)}
            said |= {"chose": list(part.chose) if np.any(part.choosing) else []}
            flagged = part.probabilities >= threshold
            exact = intervals.exact_at_the_edge(at[threshold], part.labels, flagged, part.groups)
            results.append(said | exact | calibrated)
    return results


def splits(results: list[dict]) -> dict[str, dict]:
    """Return the "splits" of metrics.json, {"test": metrics of images at the standard threshold, "clean_test": …}."""
    found = {}
    for entry in results:
        whole = entry["unit"] == results[0]["unit"] and entry["threshold_name"] == "standard"
        name = entry["on"] if entry["subset"] == ALL else f"{entry['subset']}_{entry['on']}"
        if whole and name not in found:  # the first entry of a name is for all hospitals
            found[name] = entry
    return found


def summary(results: list[dict], chosen: Calibration) -> dict:
    """Return the content of metrics.json: "splits" for people, "results" for programs, and the calibration."""
    return {"splits": splits(results), "results": results, "calibration": asdict(chosen)}


def score_test(images: Images, of_test: np.ndarray, probabilities: np.ndarray) -> Scored:
    """Return the predictions of the test images, with the subset "clean".

    A clean image shares no group with the other images, which trained the model or chose something.
    Args: images: the test images and all others; of_test: bool [n]; probabilities: of the test images, in order.
    """
    own, others = images.groups[of_test], images.groups[~of_test]
    return Scored("test", images[of_test], probabilities, own, {"clean": ~np.isin(own, others)})


def notes(scored: list[Scored], results: list[dict]) -> list[str]:
    """Return sentences that a reader of the results must know."""
    return optimism_notes(scored) + none_clean(scored) + below_chance(results) + unknown_patients(scored)


def optimism_notes(scored: list[Scored]) -> list[str]:
    """Return a sentence for each set of predictions of images that trained the model, or chose something."""
    said = []
    for one in scored:
        images = "images" if one.on == ALL else f"{one.on.replace('_', '-')} images"
        if np.any(one.trained_on):
            clean = " Look at the clean images." * bool(one.subsets.get("clean", np.zeros(1)).any())
            said.append(f"The model was trained on some of these images, so their figures are too good.{clean}")
        elif np.any(one.choosing):
            said.append(f"These {images} chose: {', '.join(one.chose)}. So their figures are slightly optimistic.")
    return list(dict.fromkeys(said))  # found and given boxes give the same sentence


def none_clean(scored: list[Scored]) -> list[str]:
    """Return a sentence for each set of predictions without a clean image."""
    return [
        f"No image of {one.on} is clean. Each shares a group with an image that trained the model or chose something."
        for one in scored
        if "clean" in one.subsets and not one.subsets["clean"].any()
    ]


def unknown_patients(scored: list[Scored]) -> list[str]:
    """Return a sentence if the rows per patient leave out images of unknown patients."""
    said = []
    for one in scored:
        patients = one.images.patients
        if one.unit == "image" and 0 < (unknown := patients.count("")) < len(patients) - len(set(patients) - {""}):
            on = one.on.replace("_", "-")
            said.append(f"{on}: the rows per patient leave out {unknown} images of unknown patients.")
    return list(dict.fromkeys(said))


def below_chance(results: list[dict]) -> list[str]:
    """Return a sentence for each hospital with an AUC interval below 0.5, where the labels may be reversed."""
    said = [
        f"The AUC on {entry['on'].replace('_', '-')} ({entry['hospital']}) and its interval are below 0.5. The labels "
        "may have the opposite meaning: malignant must be 1 in a table, and 0 in an .npz file."
        for entry in results
        if entry["auc_ci95"][1] < 0.5
        and (entry["unit"], entry["subset"], entry["threshold_name"]) == ("image", ALL, "standard")
    ]
    return list(dict.fromkeys(said))  # results with found and with given boxes say the same


def fit_calibration(
    images: Images,
    logits,
    groups,
    rule: Rule,
    on: str,
    hospital_left_out: bool = False,
    found_threshold: float = 0.0,
    chose: tuple[str, ...] = CHOSEN,
) -> Calibration:
    """Fit temperature and offset, and choose the operating point, on held-out images that are never test images.

    `measure` then says what the choice achieves, by cross-validation within these images.

    Args:
        logits: [n], not calibrated; groups: [n], the same value for images that belong together.
        rule: chooses the threshold.
        on: "val" or "out_of_fold".
        hospital_left_out: whether the model of each image has seen no image of the hospital.
        found_threshold: from `looks.choose_found_threshold`.
        chose: what these images chose.
    Raises: ValueError, as `Rule.threshold`.
    """
    labels, hospitals = images.labels, images.hospitals
    parts = hospitals if hospital_left_out else None
    chosen = calibration.choose(labels, logits, rule, parts)
    names = list(dict.fromkeys(hospitals))
    chosen_on = {"on": on, "hospitals": names, "hospital_left_out": hospital_left_out, "chose": list(chose)}
    chosen_on |= {"n": len(labels), "malignant": int(labels.sum())}
    achieved = measure(images, logits, groups, rule, parts)
    return Calibration(*chosen, rule.describe(describe_chosen_on(chosen_on)), chosen_on, achieved, found_threshold)


def describe_chosen_on(chosen_on: dict) -> str:
    """Return the images that chose a threshold, in words. chosen_on: as in `Calibration`."""
    names = {"val": "the validation images", "out_of_fold": "out-of-fold predictions"}
    said = f"{names[chosen_on['on']]} of {' + '.join(chosen_on['hospitals'])}"
    return f"{said}, in each hospital, by models that have not seen it" if chosen_on["hospital_left_out"] else said


def measure(images: Images, logits, groups, rule: Rule, parts=None) -> list[dict]:
    """Measure what a choice of calibration and threshold on these images achieves on held-out images.

    Args: parts: the hospital of each image if each hospital is held out in turn, otherwise None.
    Returns: RATES with intervals, of all hospitals together and of each hospital; [] if a class has too few groups.
    """
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
        rates = intervals.exact_at_the_edge(rates, labels[own], flagged[own], groups[own])
        kept = {key: value for key, value in rates.items() if key.removesuffix("_ci95") in RATES}
        about = {"hospital": name, "n": int(own.sum()), "malignant": int(labels[own].sum()), "held_out": True}
        found.append(about | kept)
    return found
