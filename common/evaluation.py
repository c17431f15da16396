"""Evaluate a model on any images: which images the model has seen, what is scored, and which model is better.

A run and an .onnx file keep a fingerprint of each image that trained the model or chose something. Fingerprints show
which images the model has seen. For images of the run, the table of the run gives the group and the split.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from common import boxes, comparison, fingerprints
from common.answer import Answer
from common.calibration import Calibration
from common.data import Found, Images
from common.delimited import BOX
from common.errors import UserError
from common.fingerprints import NEAR, SAME
from common.scoring import Scored
from common.subgroups import UNKNOWN

KINDS = ("trained on", "chose", "near-duplicate", "unseen")  # what a model has seen of an image; "" if unknown
NO_FINGERPRINTS = np.empty((0, fingerprints.BITS // 8), np.uint8)
OUT_OF_FOLD = {  # {--groups of crossval.py: what the models that predict an image have not seen}
    "patient": "were not trained on the image, its near-duplicates, or other images of its patient",
    "image": "were not trained on the image, but perhaps on its near-duplicates",
    "hospital": "were not trained on any image of the same hospital",
}


def choose_split(found: Found, asked: str | None) -> str:
    """Return the split to score: the one that is asked for, or test, or all images if no data set has splits.

    Raises: UserError if only some data sets have splits, because a split would leave out the others.
    """
    split = asked or ("test" if "test" in found.splits else "all")
    whole = [one.spec for one in found.sets if "all" in one.splits]
    if split != "all" and whole:
        way_out = "Give --split all, or give each a column split."
        raise UserError(f"--data: {whole[0]} has no splits, but other data have. {way_out}")
    return split


@dataclass(frozen=True)
class Seen:
    """What a model has seen of some images.

    kinds: text [n], a word of `KINDS`, or "" if unknown.
    groups: int [n], the same value for images that belong together.
    clean: bool [n], whether no image of the group trained the model, or chose its epoch or threshold.
    trained: bool [n], whether the image trained the model.
    chose: bool [n], whether the image chose the epoch or threshold.
    own: whether the images are images of the run.
    """

    kinds: np.ndarray
    groups: np.ndarray
    clean: np.ndarray
    trained: np.ndarray
    chose: np.ndarray
    own: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each kind; {} if the kinds are unknown."""
        found = Counter(self.kinds.tolist())
        return {} if "" in found else {kind: found[kind] for kind in KINDS}


def by_pictures(
    images: Images, trained_on: np.ndarray = NO_FINGERPRINTS, chosen_on: np.ndarray = NO_FINGERPRINTS
) -> Seen:
    """Return what a model has seen of images, by fingerprints. Without fingerprints, all images count as clean.

    Args: trained_on, chosen_on: uint8 [m, 32], fingerprints of images that trained the model, or chose something.
    """
    groups = images.groups
    trained, chosen = (fingerprints.distance(images.squares, known) for known in (trained_on, chosen_on))
    near = np.minimum(trained, chosen) <= NEAR
    kinds = np.select([trained <= SAME, chosen <= SAME, trained <= NEAR], KINDS[:3], KINDS[3])
    kinds = kinds if len(trained_on) else np.full(len(images), "")
    return Seen(kinds, groups, ~np.isin(groups, groups[near]), trained <= SAME, chosen <= SAME)


def by_table(seen: Seen, rows: pd.DataFrame, table: pd.DataFrame, trained_on: list[str], chosen_on: list[str]) -> Seen:
    """Return what the model of a run has seen of the images of the run, by the table of the run.

    Args: seen: from `by_pictures`; rows: the rows of the table for the images, in order; trained_on, chosen_on: names
        of splits.
    """
    groups = rows["group"].to_numpy()
    trained, chose = (rows["split"].isin(splits).to_numpy() for splits in (trained_on, chosen_on))
    near, used, known = (
        np.isin(groups, table["group"][table["split"].isin(splits)])
        for splits in (trained_on, [*trained_on, *chosen_on], ["train", "val", *trained_on])
    )
    kinds = np.select([trained | (seen.kinds == KINDS[0]), chose, near], KINDS[:3], KINDS[3])
    clean = ~np.where(rows["split"] == "test", known, used)  # clean test: in no group with a train or val image
    return Seen(kinds, groups, clean, trained, chose, own=True)


@dataclass(frozen=True)
class Predicted:
    """Predictions of images by a model.

    probabilities: calibrated P(malignant), [n].
    out_of_fold: bool [n], whether models that were not trained on an image predicted the image.
    answer: the answer of the model; None for stored predictions.
    given: the answer for the images with a box, when the model looks at the box; None if the model does not look for
        lesions, or if no image has a box.
    calibration: of the model.
    """

    images: Images
    probabilities: np.ndarray
    seen: Seen
    out_of_fold: np.ndarray
    answer: Answer | None = None
    given: Answer | None = None
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def typicality(self) -> np.ndarray | None:
        """The typicality of each image, float32 [n]; None if the answer has no typicality."""
        return self.answer.typicality if self.answer else None

    @property
    def unlike(self) -> np.ndarray:
        """Whether each image is unlike the training images, bool [n]; False without typicality."""
        return self.answer.unlike if self.answer else np.zeros(len(self.images), bool)

    @property
    def unseen(self) -> np.ndarray:
        """Whether each image is clean or predicted out-of-fold, bool [n]."""
        return self.seen.clean | self.out_of_fold

    @property
    def how(self) -> str:
        """The kind of the predictions, in words."""
        if self.out_of_fold.all():
            return "out-of-fold predictions"
        return "predictions" + ", out-of-fold where possible," * bool(self.out_of_fold.any()) + " of the model"


def overlaps(predicted: Predicted) -> np.ndarray:
    """Return the IoU of the found window and the window around the box, for the images with a box: [boxed]."""
    assert predicted.answer and predicted.given  # the model looks for lesions
    return boxes.overlap(predicted.answer.windows[predicted.images.boxed], predicted.given.windows)


def finder(predicted: Predicted) -> dict:
    """Return how well the finder places windows; {} without a finder.

    "n": images with a box. "iou_median", "iou_below_0.3": IoU of the found window and the window around the box, median
    and share below 0.3. "centre_inside": share of windows with the centre in the box. "nothing_found": number of all
    images in which the finder finds no lesion.
    """
    if predicted.given is None or predicted.answer is None:
        return {}
    images, found = predicted.images[predicted.images.boxed], predicted.answer.windows[predicted.images.boxed]
    iou = overlaps(predicted)
    inside = boxes.holds_centre(found, boxes.in_shares(images.boxes, images.sizes))
    return {
        "n": len(iou),
        "iou_median": float(np.median(iou)),
        "iou_below_0.3": float(np.mean(iou < 0.3)),
        "centre_inside": float(np.mean(inside)),
        "nothing_found": int(np.sum(predicted.answer.found < predicted.calibration.found_threshold)),
    }


def add_subsets(predicted: Predicted, on: str, by: str | None = None) -> Scored:
    """Return the predictions as `Scored`, with groups and subsets. Raises: UserError if there is no column `by`.

    The subsets are clean images, images like and unlike the training images, and the images of each value of `by`.
    """
    seen, out_of_fold = predicted.seen, predicted.out_of_fold
    subsets = {"clean": seen.clean} if not out_of_fold.all() and (seen.own or not seen.clean.all()) else {}
    if predicted.unlike.any():
        subsets |= {"typical": ~predicted.unlike, "unlike": predicted.unlike}
    values = split_by(predicted.images.table, by) if by else {}
    subsets |= {f"{by} {value}": of_value for value, of_value in values.items()}
    did = {"trained_on": seen.trained & ~out_of_fold, "choosing": seen.chose | out_of_fold}
    did["chose"] = predicted.calibration.chose
    named = {f"{by} {value}": {str(by): value} for value in values}
    shown = predicted.images, predicted.probabilities, seen.groups
    return Scored(on, *shown, subsets, by=named, **did)


def per_patient(scored: Scored) -> Scored:
    """Return the predictions of patients. Raises: UserError if the patient of an image is unknown."""
    if unknown := scored.images.patients.count(""):
        raise UserError(f"--unit patient: the patient of {unknown} images is unknown. Give data with a column patient.")
    return scored.per_patient()


def split_by(table: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """Return the images of each value of a column, {value: bool [n]}. Raises: UserError on an unknown column."""
    known = [name for name in table.columns if name[0] != "_" and name not in BOX]
    if column not in known:
        raise UserError(f"--by {column}: the images have no such column. Use {', '.join(known)}.")
    values = table[column].astype(str).replace("", UNKNOWN)
    return {value: (values == value).to_numpy() for value in sorted(values.unique())}


def notes(predicted: Predicted, groups: str) -> list[str]:
    """Return sentences on what the model has seen. groups: --groups of crossval.py, for out-of-fold predictions."""
    n, held_out, counts, said = len(predicted.images), int(predicted.out_of_fold.sum()), predicted.seen.counts, []
    if predicted.answer and predicted.typicality is not None:
        below = f"typicality below {predicted.answer.typicality_threshold:g}"
        said.append(f"{predicted.unlike.sum()} of {n} images are unlike the training images ({below}).")
    if placed := finder(predicted):
        said.append(
            f"{placed['n']} images have a box. In {placed['centre_inside']:.0%}, the centre of the window lies in the "
            f"box. In {placed['iou_below_0.3']:.0%}, the window and the window around the box have an IoU below 0.3. "
            f"The model finds no lesion in {placed['nothing_found']} of {n} images."
        )
    if held_out:
        which = "Each image is" if held_out == n else f"{held_out} of the {n} images are each"
        said.append(f"{which} predicted by models that {OUT_OF_FOLD[groups]}.")
    else:
        chose = f"{counts['chose']} others chose its {' or '.join(predicted.calibration.chose)}, " * bool(
            counts["chose"]
        )
        said.append(
            f"Of these {n} images, {counts['trained on']} are training images of the model (or nearly identical), "
            f"{chose}{counts['near-duplicate']} are near-duplicates of training images, and {counts['unseen']} are new "
            "to the model."
        )
    return said


def compare(scored: Scored, a: Predicted, b: Predicted, names: tuple[str, str], resamples: int) -> dict:
    """Compare two models on the images that neither model has seen. scored: the predictions of `a`.

    Returns: as `comparison.compare`, with "n", the number of unseen images, and "seen", the number of others. If
    a class is absent, the result has a conclusion, but no figures.
    """
    groups = scored.groups
    unseen = ~np.isin(groups, groups[~(a.unseen & b.unseen)])
    n, seen = int(unseen.sum()), int((~unseen).sum())
    about = {"against": names[1], "n": n, "seen": seen}
    some = f"{n} of these {len(unseen)} images are new to both models"
    if len(np.unique(scored.labels[unseen])) < 2:
        return about | {"conclusion": f"{some}, so nothing can be concluded. Name other images with --data."}
    pair = a.probabilities[unseen], b.probabilities[unseen]
    counts = scored.only(unseen).resample_counts(resamples)
    found = comparison.compare(scored.labels[unseen], *pair, counts, names)
    said = [f"{some}, and only these images are compared."] * bool(seen) + [found["conclusion"]]
    unknown = [name for name, one in zip(names, (a, b)) if not one.seen.counts and not one.out_of_fold.all()]
    said += [f"It is unknown which images {name} has seen." for name in unknown]
    return about | found | {"conclusion": " ".join(said)}
