"""What a model has seen of images, which parts are scored, and what a comparison may conclude."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import refusal
from PIL import Image

from common import data, evaluation, fingerprints, phantom, scoring
from common.answer import Answer, whole_windows
from common.calibration import Calibration
from common.evaluation import KINDS, Predicted, Seen

PIXELS, LABELS = phantom.generate(24, 90, seed=7, malignant_share=0.5)


def images(rows=slice(None), split: str = "test", **more) -> data.Images:
    return data.of_arrays(PIXELS[rows], LABELS[rows], split, "a", **more)


def as_jpeg(image: np.ndarray, brighter: float = 1.0) -> np.ndarray:
    """The picture as somebody else keeps it: re-compressed, of another size and brightness."""
    file = io.BytesIO()
    Image.fromarray((image * brighter).clip(0, 255).astype(np.uint8)).resize((70, 70)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def near_duplicate(image: np.ndarray) -> np.ndarray:
    """The next frame of the same lesion, as it were: a little moved."""
    return np.roll(image, 4, axis=1)


def marks(rows) -> np.ndarray:
    return fingerprints.fingerprint(PIXELS[rows])


def test_pictures_tell_what_a_model_has_seen_whatever_their_file():
    """Ten of training, as other files, two near-duplicates of these, and ten that are new, of one patient with one."""
    copies = [as_jpeg(image, brighter) for image, brighter in zip(PIXELS[:10], np.linspace(0.8, 1.1, 10))]
    moved = [as_jpeg(near_duplicate(image)) for image in PIXELS[:2]]
    new = [as_jpeg(image) for image in PIXELS[12:22]]
    given = data.of_arrays(np.stack(copies + moved + new), np.tile([0, 1], 11), "all", "b")
    given.table["patient"] = [""] * 9 + ["p"] + [""] * 2 + ["p"] + [""] * 9
    seen = evaluation.by_pictures(given, marks(slice(0, 10)), marks(slice(20, 21)))
    assert seen.kinds.tolist() == ["trained on"] * 10 + ["near-duplicate"] * 2 + ["unseen"] * 8 + ["chose", "unseen"]
    assert seen.counts == {"trained on": 10, "chose": 1, "near-duplicate": 2, "unseen": 9}
    assert np.flatnonzero(seen.trained).tolist() == list(range(10)) and np.flatnonzero(seen.chose).tolist() == [20]
    assert np.flatnonzero(seen.clean).tolist() == [13, 14, 15, 16, 17, 18, 19, 21]  # 12: its patient was trained on


def test_without_fingerprints_nothing_is_known():
    seen = evaluation.by_pictures(images())
    assert seen.counts == {} and set(seen.kinds) == {""} and seen.clean.all() and not (seen.trained | seen.chose).any()


@pytest.mark.parametrize(
    "trained_on, chosen_on, kinds, clean",
    [
        (["train"], ["val"], [0, 0, 1, 2, 3], [4]),
        (["train", "val"], [], [0, 0, 0, 2, 3], [4]),
        (["train", "val", "test"], [], [0, 0, 0, 0, 0], []),  # --pool all
        (["train"], [], [0, 0, 3, 2, 3], [2, 4]),  # --pool train: val trained and chose nothing
    ],
)
def test_of_a_run_s_own_images_its_table_says_more(trained_on, chosen_on, kinds, clean):
    split, group = ["train", "train", "val", "test", "test"], [0, 0, 2, 0, 4]
    table = pd.DataFrame({"split": split, "group": group})
    seen = evaluation.by_table(evaluation.by_pictures(images(slice(5))), table, table, trained_on, chosen_on)
    assert seen.kinds.tolist() == [KINDS[kind] for kind in kinds] and seen.groups.tolist() == group and seen.own
    assert np.flatnonzero(seen.clean).tolist() == clean
    assert np.flatnonzero(seen.chose).tolist() == ([2] if chosen_on else [])


def answer(typicality) -> Answer:
    """What a model says of 24 images, of which it sees all."""
    return Answer(np.linspace(0.01, 0.99, 24), whole_windows(24), np.ones(24, np.float32), typicality, 0.1)


def predicted(seen=(), out_of_fold=(), chose=(), own=False, **more) -> Predicted:
    """Predictions of 24 images. seen, out_of_fold, chose: indices."""
    where = [np.isin(np.arange(24), index) for index in (seen, out_of_fold, chose)]
    kinds = np.select([where[0], where[2]], ["trained on", "chose"], "unseen")
    what = Seen(kinds, np.arange(24), ~where[0], where[0], where[2], own)
    return Predicted(images(device=["X", "Y", ""] * 8), np.linspace(0.01, 0.99, 24), what, where[1], **more)


def test_subsets_are_those_that_say_something():
    def subsets(given: Predicted, by=None) -> dict:
        return {name: int(mask.sum()) for name, mask in evaluation.add_subsets(given, "test", by).subsets.items()}

    assert subsets(predicted()) == {} and subsets(predicted(own=True)) == {"clean": 24}
    assert subsets(predicted(seen=[1, 2])) == {"clean": 22}
    assert subsets(predicted(seen=[1, 2], out_of_fold=[1])) == {"clean": 22}  # image 1 chose the threshold
    assert subsets(predicted(range(24), range(24), own=True)) == {}
    typicality = np.linspace(0, 1, 24, dtype=np.float32)
    assert subsets(predicted(answer=answer(typicality))) == {"typical": 21, "unlike": 3}
    assert subsets(predicted(answer=answer(typicality + 0.2))) == {}
    assert subsets(predicted(), by="device") == {"device X": 8, "device Y": 8, "device unknown": 8}
    message = refusal(evaluation.add_subsets, predicted(), "test", "scanner")
    assert message.startswith("--by scanner: the images have no such column. Use image, label, split, hospital")
    assert "no such column" in refusal(evaluation.add_subsets, predicted(), "test", "width")  # a box is no group


def test_values_of_a_column_are_fields():
    def named(by=None) -> list:
        scored = evaluation.add_subsets(predicted(seen=[1]), "test", by)
        results = scoring.score_parts([scored], Calibration(), 100)
        return [(entry["subset"], entry.get("by")) for entry in results if entry["threshold_name"] == "standard"]

    values = [(f"device {value}", {"device": value}) for value in ("X", "Y", "unknown")]
    assert named("device") == [("all", None), ("clean", None), *values]
    assert named() == [("all", None), ("clean", None)]


@pytest.mark.parametrize(
    "given, trained_on, chose",
    [
        ({}, [], []),
        ({"seen": [3]}, [3], []),
        ({"seen": [3], "out_of_fold": [3]}, [], ["calibration", "threshold"]),
        ({"chose": [3]}, [], ["calibration", "threshold"]),
        ({"chose": [3], "calibration": Calibration(chosen_on={"chose": ["epoch"]})}, [], ["epoch"]),
    ],
)
def test_scored_predictions_say_what_their_images_were_for(given, trained_on, chose):
    """Each part of the images speaks for itself: those of device Y trained and chose nothing."""
    scored = evaluation.add_subsets(predicted(**given), "test", "device")
    assert np.flatnonzero(scored.trained_on).tolist() == trained_on
    found = {entry["subset"]: entry for entry in scoring.score_parts([scored], Calibration(), 50)}
    for part, used in (("all", True), ("device X", True), ("device Y", False)):
        assert found[part]["chose"] == (chose if used else [])
        assert found[part]["held_out"] == (not used or not given)


def test_what_the_images_are_to_the_model_is_said():
    def said(groups: str = "", **given) -> str:
        return " ".join(evaluation.notes(predicted(**given), groups))

    assert said().startswith("Of these 24 images, 0 are training images of the model (or nearly identical), ")
    assert said().endswith("0 are near-duplicates of training images, and 24 are new to the model.")
    assert ", 2 are training images" in said(seen=[1, 2])
    text = said(chose=[5, 6, 7], calibration=Calibration(chosen_on={"chose": ["calibration", "threshold"]}))
    assert ", 3 others chose its calibration or threshold, 0 are near-duplicates" in text and "21 are new" in text
    assert said("image", out_of_fold=range(24)).startswith("Each image is predicted by models that were not trained on")
    assert "perhaps on its near-duplicates" in said("image", out_of_fold=range(24))
    assert "any image of the same hospital" in said("hospital", out_of_fold=range(24))
    assert said("patient", out_of_fold=[1, 2]).startswith("2 of the 24 images are each predicted by")
    typicality = np.linspace(0, 1, 24, dtype=np.float32)
    text = said(answer=answer(typicality))
    assert text.startswith(
        "3 of 24 images are unlike the training images (typicality below 0.1). Of these 24 images, 0 are"
    )


@pytest.fixture
def looking() -> Predicted:
    """Predictions of a model that looks for lesions. Every second image has a box: of two of these the window is the
    one around it, of four its half lies in that, of six it lies mostly elsewhere."""
    found = predicted(seen=[1, 2])
    table = found.images.table.assign(x=np.nan, y=np.nan, width=np.nan, height=np.nan)
    table.loc[::2, ["x", "y", "width", "height"]] = [30.0, 30, 15, 10]
    windows, around = np.tile(np.float32([0.5, 0.2, 1 / 3, 1 / 3]), (24, 1)), np.float32([0.25, 2 / 9, 1 / 3, 1 / 3])  # type: ignore[arg-type]
    windows[::4] = around + np.float32([1 / 6, 0, 0, 0])  # type: ignore[arg-type]
    windows[:8:4] = around
    sure = Calibration(found_threshold=0.1)
    said = Answer(found.probabilities, windows, np.linspace(0, 0.96, 24, dtype=np.float32))
    given = Answer(np.linspace(0.2, 0.3, 12), np.tile(around, (12, 1)), np.ones(12, np.float32))
    return replace(found, images=replace(found.images, table=table), answer=said, given=given, calibration=sure)


def test_predictions_by_given_boxes_are_of_the_images_that_have_one(looking):
    found, given = scoring.by_boxes(evaluation.add_subsets(looking, "test"), looking.given.probabilities)
    assert (found.boxes, given.boxes, len(found.labels)) == ("found", "given", 24)
    assert found.probabilities.tolist() == looking.probabilities.tolist()
    assert np.flatnonzero(found.subsets["boxed"]).tolist() == list(range(0, 24, 2))
    assert given.probabilities.tolist() == looking.given.probabilities.tolist()
    assert given.labels.tolist() == LABELS[::2].tolist()
    results = scoring.score_parts([found, given], Calibration(), 100)
    assert {(entry["boxes"], entry["subset"], entry["n"]) for entry in results} == {
        ("found", "all", 24), ("found", "clean", 22), ("found", "boxed", 12), ("given", "all", 12)
    }  # fmt: skip
    (alone,) = scoring.by_boxes(evaluation.add_subsets(predicted(), "test"), None)
    assert alone.boxes == "" and "boxes" not in scoring.score_parts([alone], Calibration(), 100)[0]


def test_windows_are_measured_against_those_around_the_boxes(looking):
    inner = 1 / 12 * 14 / 45
    iou = [1, inner / (2 / 9 - inner), 1, inner / (2 / 9 - inner), *[1 / 3, inner / (2 / 9 - inner)] * 4]
    assert evaluation.overlaps(looking) == pytest.approx(iou, abs=1e-5)
    assert evaluation.finder(looking) == pytest.approx(
        {"n": 12, "iou_median": np.median(iou), "iou_below_0.3": 0.5, "centre_inside": 1 / 6, "nothing_found": 3},
        abs=1e-5,
    )
    said = " ".join(evaluation.notes(looking, ""))
    assert (
        "12 images have a box. In 17%, the centre" in said
        and "In 50%, the window and the window around the box have an IoU below 0.3." in said
        and "The model finds no lesion in 3 of 24 images." in said
    )
    assert evaluation.finder(predicted()) == {} and "box" not in " ".join(evaluation.notes(predicted(), ""))


def compare(a: Predicted, b: Predicted) -> dict:
    return evaluation.compare(evaluation.add_subsets(a, "test"), a, b, ("a", "b"), 200)


def test_a_comparison_is_of_the_images_that_neither_model_has_seen():
    """The one that was trained on half of the images knows their labels, and has learned nothing else."""
    a, b = predicted(seen=range(12)), predicted(seen=[12])
    knows = replace(a, probabilities=np.where(np.arange(24) < 12, LABELS, 0.5))
    found = compare(knows, replace(b, probabilities=np.full(24, 0.5)))
    assert (found["n"], found["seen"], found["delong"]["difference"]) == (11, 13, 0)
    assert found["conclusion"].startswith(
        "11 of these 24 images are new to both models, and only these images are compared. On these 11 images"
    )
    everything = compare(replace(knows, out_of_fold=np.ones(24, bool)), replace(b, out_of_fold=np.ones(24, bool)))
    assert (everything["n"], everything["seen"]) == (24, 0) and everything["delong"]["difference"] > 0.2
    assert everything["conclusion"].startswith("On these 24 images")


def test_a_group_that_one_model_has_seen_is_not_new():
    a, b = predicted(), predicted(seen=[0])
    together = replace(a, seen=replace(a.seen, groups=np.where(np.arange(24) < 6, 0, np.arange(24))))
    assert compare(together, b)["n"] == 18


def test_nothing_is_concluded_of_a_model_that_was_trained_on_all_of_the_images():
    perfect = replace(predicted(seen=range(24)), probabilities=LABELS.astype(float))
    found = compare(predicted(), perfect)
    assert found == {
        "against": "b", "n": 0, "seen": 24,
        "conclusion": "0 of these 24 images are new to both models, so nothing can be concluded. "
        "Name other images with --data.",
    }  # fmt: skip


def test_a_model_that_does_not_tell_what_it_has_seen_is_named():
    a = predicted()
    unknown = replace(a, seen=evaluation.by_pictures(a.images))
    assert compare(a, unknown)["conclusion"].endswith(" It is unknown which images b has seen.")
    assert compare(unknown, unknown)["conclusion"].endswith(
        " which images a has seen. It is unknown which images b has seen."
    )
    assert "unknown" not in compare(a, replace(unknown, out_of_fold=np.ones(24, bool)))["conclusion"]


def test_a_split_that_only_some_data_sets_have_is_refused():
    def found(*splits: tuple[str, ...]) -> data.Found:
        sets = [data.DataSet(f"set{i}", f"set{i}", "", lambda split: images(), names) for i, names in enumerate(splits)]
        return data.Found(tuple(sets), 28, 0)

    divided, whole = ("train", "test"), ("all",)
    assert [evaluation.choose_split(found(*sets), None) for sets in ([divided], [whole], [whole, whole])] == [
        "test",
        "all",
        "all",
    ]
    assert evaluation.choose_split(found(divided, whole), "all") == "all"
    message = refusal(evaluation.choose_split, found(divided, whole), None)
    assert message.startswith("--data: set1 has no splits, but other data have. Give --split all")
