import numpy as np

from common import calibration, intervals, scoring
from common.data import Split
from common.show import tables


def split_of(labels, patients=None) -> Split:
    """A split without images to speak of."""
    known = patients and [{"patient": patient} for patient in patients]
    return Split.of("test", np.zeros((len(labels), 28, 28), np.uint8), np.array(labels, np.uint8), known)


def test_scores_name_thresholds_and_end_with_the_whole_split():
    rng = np.random.default_rng(0)
    labels, probabilities, clean = rng.integers(0, 2, 60), rng.random(60), np.arange(60) < 40
    chosen, groups = calibration.Calibration(1.5, 0.25, "a rule", "val", 78), np.arange(60) // 2
    scored = scoring.Scored(split_of(labels), probabilities, groups, {"clean": clean, "unlike": np.zeros(60, bool)})
    scores = scoring.evaluate_splits({"test": scored}, chosen, resamples=100)
    assert [s["n"] for s in scores["splits"].values()] == [60, 40]
    counts = [intervals.resample_counts(labels[:n], groups[:n], 100) for n in (60, 40)]
    assert scores["splits"]["test"] == intervals.summary(labels, probabilities, counts[0])
    point = scores["operating_point"]["splits"]
    assert point["clean_test"] == intervals.summary(labels[:40], probabilities[:40], counts[1], 0.25)
    text = tables.scores_text(scores, "PHANTOM data 28×28")
    low, high = scores["calibration"]["test"]["brier_ci95"]
    assert low < scores["calibration"]["test"]["brier"] == calibration.brier(labels, probabilities) < high
    assert "operating point 0.2500: a rule" in text and "temperature 1.500 fitted on val" in text
    assert text.splitlines()[-1].startswith("PHANTOM data 28×28: test AUC")
    assert text.splitlines()[-1].endswith("on 60 images")
    assert f"NPV {tables.with_interval(point['test']['benign'], 'precision')}" in text


def test_a_patient_is_called_by_the_highest_probability_of_its_images():
    split = split_of([0, 1, 0, 0, 1], ["b", "a", "a", "b", "c"])
    scored = scoring.Scored(split, np.array([0.4, 0.1, 0.3, 0.2, 0.9]), np.array([0, 1, 1, 0, 4]))
    assert list(scored.parts("all")) == ["all", "all_patients"]
    patients = scored.per_patient()
    assert patients.split.patients == ["a", "b", "c"] and patients.labels.tolist() == [1, 0, 1]
    assert patients.probabilities.tolist() == [0.3, 0.4, 0.9]
    for known in (None, ["a", "b", "c", "d", "e"], ["a", "a", "", "", ""]):
        assert list(scoring.Scored(split_of([0, 1, 0, 0, 1], known), *[np.arange(5)] * 2).parts("all")) == ["all"]


def test_what_a_model_has_seen_is_told_by_the_images(phantoms):
    trained, split = phantoms[:20], phantoms[10:30]
    images = split.images.copy()
    images[0] = images[0][:, ::-1]  # mirrored, it is still the same picture
    images[1] = (0.8 * images[1] + 0.2 * images[2]).round()
    seen = scoring.count_seen(Split.of("all", images, split.labels), trained)
    assert seen == {"trained_on": 9, "near_duplicates": 1, "unseen": 10}
