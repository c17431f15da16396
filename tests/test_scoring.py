"""Results as entries that say what they are about, and what a choice of the threshold achieves."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from common_fixtures import summary_with_intervals

from common import calibration, data, intervals, metrics, scoring
from common.calibration import Calibration
from common.data import Images, concatenate
from common.folds import assign_folds
from common.images import of_pixels
from common.scoring import Scored
from common.thresholds import Rule

RULE = Rule("sensitivity", 0.9)
CHOSEN = Calibration(1.5, 0.0, 0.25)


def images_of(labels, hospitals="a", patients="") -> Images:
    """Images without pixels to speak of."""
    blank = data.of_arrays(np.zeros((len(labels), 28, 28), np.uint8), np.array(labels), "test", "")
    return replace(blank, table=blank.table.assign(hospital=hospitals, patient=patients))


@pytest.fixture(scope="module")
def scored() -> Scored:
    """60 images of two hospitals; patients are known of the first one only, which has two images of each."""
    rng = np.random.default_rng(0)
    patients = [f"p{i // 2}" if i < 40 else "" for i in range(60)]
    images = images_of(rng.integers(0, 2, 60), ["a"] * 40 + ["b"] * 20, patients)
    subsets = {"clean": np.arange(60) < 30, "unlike": np.zeros(60, bool)}
    return Scored("test", images, rng.random(60), np.arange(60) // 2, subsets)


@pytest.fixture(scope="module")
def results(scored) -> list[dict]:
    return scoring.score_parts([scored, replace(scored, on="val", subsets={})], CHOSEN, 100)


def test_entries_say_hospital_unit_subset_and_threshold_in_fields(results):
    said = [tuple(entry[name] for name in ("hospital", "unit", "subset")) for entry in results if entry["on"] == "test"]
    whole = [("all", "image", "all"), ("all", "patient", "all"), ("all", "image", "clean")]
    of_a = [("a", *rest) for _, *rest in whole]
    assert said[::2] == said[1::2] == [*whole, *of_a, ("b", "image", "all")]  # no empty part, no patients of b
    pairs = [("standard", 0.5), ("operating point", 0.25)]
    assert [(entry["threshold_name"], entry["threshold"]) for entry in results] == pairs * (len(results) // 2)
    assert [entry["on"] for entry in results] == ["test"] * 14 + ["val"] * 10


def test_entries_are_the_metrics_of_their_images(scored, results):
    hospitals, clean = scored.images.hospitals, scored.subsets["clean"]
    for entry in results[:14]:
        if entry["unit"] == "patient":
            continue
        part = np.isin(hospitals, ["a", "b"] if entry["hospital"] == "all" else [entry["hospital"]])
        part &= clean if entry["subset"] == "clean" else True
        shown, counts = (scored.labels[part], scored.probabilities[part]), scored.only(part).resample_counts(100)
        assert np.array_equal(counts, intervals.resample_counts(shown[0], scored.groups[part], 100))
        expected = summary_with_intervals(*shown, counts, entry["threshold"])
        flagged = shown[1] >= entry["threshold"]
        expected = intervals.exact_at_the_edge(expected, shown[0], flagged, scored.groups[part])
        expected |= intervals.with_intervals(partial(calibration.summary, *shown), counts)
        assert {name: entry[name] for name in expected} == expected


def test_splits_for_people_are_of_all_hospitals_at_the_standard_threshold(results):
    summary = scoring.summary(results, CHOSEN)
    assert {name: entry["n"] for name, entry in summary["splits"].items()} == {"test": 60, "clean_test": 30, "val": 60}
    assert summary["splits"]["test"] is results[0] and summary["results"] is results
    assert summary["calibration"]["threshold"] == 0.25


@pytest.mark.parametrize("trained_on, choosing", [(False, False), (False, True), (True, False)])
def test_every_entry_says_whether_its_images_chose_or_trained(scored, trained_on, choosing):
    """Here those of hospital a that are not clean trained or chose: another hospital of the same table is held out."""
    used = (scored.images.hospitals == "a") & ~scored.subsets["clean"]
    did = {"trained_on": used & trained_on, "choosing": used & choosing, "chose": ("epoch", "threshold")}
    found = scoring.score_parts([replace(scored, **did)], CHOSEN, 100)
    said = {(e["hospital"], e["subset"]): (e["held_out"], *e["chose"]) for e in found if e["unit"] == "image"}
    expected = (not (trained_on or choosing), *did["chose"] * choosing)
    assert {said[part] for part in (("all", "clean"), ("a", "clean"), ("b", "all"))} == {(True,)}
    assert said["all", "all"] == said["a", "all"] == expected
    of_patients = [e for e in found if e["unit"] == "patient" and e["hospital"] == "a"]
    assert {(e["held_out"], *e["chose"]) for e in of_patients} == {expected}


# per patient


def test_a_patient_is_called_by_the_highest_probability_of_its_images():
    images = images_of([0, 1, 0, 0, 1], patients=["b", "a", "a", "b", "c"])
    patients = Scored("all", images, np.array([0.4, 0.1, 0.3, 0.2, 0.9]), np.array([0, 1, 1, 0, 4])).per_patient()
    assert patients.images.patients == ["a/a", "a/b", "a/c"] and patients.labels.tolist() == [1, 0, 1]
    assert patients.probabilities.tolist() == [0.3, 0.4, 0.9] and patients.groups.tolist() == [1, 0, 4]


def test_images_of_unknown_patients_are_left_out_of_the_rows_per_patient(scored):
    """An empty cell is no patient, and does not make the other patients vanish."""
    patients = scored.per_patient()
    assert len(patients.labels) == 20 and set(patients.images.hospitals) == {"a"}
    pairs = scored.probabilities[:40].reshape(20, 2)
    assert sorted(patients.probabilities) == sorted(pairs.max(1))


def test_one_number_in_two_hospitals_is_two_patients():
    images = images_of([0, 0, 1, 1], ["a", "a", "b", "b"], "1")
    assert len(Scored("all", images, np.arange(4) / 4, np.arange(4)).per_patient().labels) == 2


@pytest.mark.parametrize("patients", ["", list("abcde"), ["a", "b", "", "", ""]])
def test_without_two_images_of_a_patient_there_are_no_rows_per_patient(patients):
    scored = Scored("all", images_of([0, 1, 0, 0, 1], patients=patients), np.arange(5) / 5, np.arange(5))
    assert [about["unit"] for about, _ in scoring.parts(scored)] == ["image"]


# clean test, and what is said


def test_clean_images_share_no_group_with_those_that_trained_or_chose(phantoms):
    known = [phantoms[:10], phantoms[10:20]]
    pixels, patients = phantoms.pixels[20:26].copy(), ["p", "p", "", "", "", ""]
    pixels[1] = known[0].pixels[3][:, ::-1]  # another image of its patient, 0, is no near-duplicate
    pixels[2] = known[1].pixels[2]
    test = of_pixels(pixels, phantoms[20:26].table.assign(patient=patients))
    scored = scoring.score_test(concatenate(test, *known), np.arange(26) < 6, np.arange(6) / 6)
    assert scored.subsets["clean"].tolist() == [False, False, False, True, True, True]
    assert scored.groups[0] == scored.groups[1] and len(set(scored.groups)) == 5


def test_what_a_reader_must_know_is_said_once_each(scored):
    labels = scored.labels.copy()
    backwards = replace(scored, probabilities=1 - (labels + scored.probabilities) / 2)
    *said, left_out = scoring.notes([backwards], scoring.score_parts([backwards], CHOSEN, 200))
    assert left_out == "test: the rows per patient leave out 20 images of unknown patients."
    assert len(said) == len(set(said)) == 3 and all("and its interval are below 0.5" in note for note in said)
    assert [note.split("(")[1].split(")")[0] for note in said] == ["all", "a", "b"]
    seen = replace(scored, on="val", subsets={"clean": np.zeros(60, bool)}, trained_on=True)
    trained, none, _ = scoring.notes([seen], [])
    assert "was trained on some of these images" in trained and "clean images" not in trained
    assert none.startswith("No image of val is clean")
    chose, _ = scoring.notes([replace(scored, on="out_of_fold", choosing=True, chose=("epoch", "threshold"))], [])
    assert chose == "These out-of-fold images chose: epoch, threshold. So their figures are slightly optimistic."
    assert scoring.notes([scored], scoring.score_parts([scored], CHOSEN, 100)) == [left_out]


def test_rows_per_patient_say_whom_they_leave_out(scored):
    patients = ["p", "p", *[""] * 10, *map(str, range(len(scored.labels) - 12))]
    table = scored.images.table.assign(patient=patients)
    some = replace(scored, images=replace(scored.images, table=table))
    assert scoring.unknown_patients([some]) == [
        f"{scored.on}: the rows per patient leave out 10 images of unknown patients."
    ]
    nobody = replace(scored, images=replace(scored.images, table=table.assign(patient="")))
    assert scoring.unknown_patients([nobody]) == []


# calibration on held-out predictions


@pytest.fixture(scope="module")
def held_out() -> tuple[Images, np.ndarray, np.ndarray]:
    """240 images of two hospitals, their logits and their groups of two."""
    rng = np.random.default_rng(1)
    labels, hospitals = np.repeat(rng.integers(0, 2, 120), 2), np.repeat(["a", "b"], 120)
    logits = (2 * labels - 1) * np.where(hospitals == "a", 2, 1) + rng.normal(0, 1.5, 240)
    return images_of(labels, hospitals), logits, np.arange(240) // 2


@pytest.mark.parametrize("by_hospital", [False, True])
def test_the_promise_is_measured_on_images_that_take_no_part_in_the_choice(held_out, by_hospital):
    images, logits, groups = held_out
    found = scoring.fit_calibration(images, logits, groups, RULE, "out_of_fold", by_hospital)
    parts = images.hospitals if by_hospital else None
    assert (found.temperature, found.offset, found.threshold) == calibration.choose(images.labels, logits, RULE, parts)
    about = {"on": "out_of_fold", "hospitals": ["a", "b"], "hospital_left_out": by_hospital}
    about |= {"chose": ["calibration", "threshold"]}
    assert found.chosen_on == about | {"n": 240, "malignant": int(images.labels.sum())}
    assert ("by models that have not seen it" in found.threshold_rule) == by_hospital

    fold = (images.hospitals == "b") if by_hospital else assign_folds(images.labels, groups, 5, 0)
    _, flagged = calibration.cross_fit(images.labels, logits, RULE, fold, parts)
    assert [entry["hospital"] for entry in found.achieved] == ["all", "a", "b"]
    for entry, own in zip(found.achieved, [fold >= 0, images.hospitals == "a", images.hospitals == "b"]):
        expected = metrics.rates(images.labels[own], flagged[own])
        assert all(entry[name] == expected[name] for name in ("recall", "specificity", "precision"))
        assert entry["recall_ci95"][0] <= entry["recall"] <= entry["recall_ci95"][1]
        assert (entry["n"], entry["malignant"]) == (own.sum(), images.labels[own].sum()) and entry["held_out"]
    assert found.achieved_together is found.achieved[0]


def test_one_hospital_has_one_promise_under_its_name_and_few_images_have_none(held_out):
    images, logits, groups = held_out
    alone = np.arange(240) < 120
    found = scoring.fit_calibration(images[alone], logits[alone], groups[alone], RULE, "val")
    assert [entry["hospital"] for entry in found.achieved] == ["a"]
    assert found.threshold_rule.startswith("largest threshold with a sensitivity of at least 0.9 on the validation im")
    few = np.r_[np.flatnonzero(images.labels)[:8], np.flatnonzero(images.labels == 0)[:20]]  # four malignant groups
    found = scoring.fit_calibration(images[few], logits[few], groups[few], RULE, "val")
    assert found.achieved == [] and found.achieved_together == {} and 0 < found.threshold < 1
