import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from common import calibration, intervals, scoring
from common.data import Source, Split
from common.show import tables


def test_clean_images_share_no_group_with_another_split(phantoms):
    test, train = phantoms[:6], phantoms[3:9]
    mirrored = Split(train.images[..., ::-1].copy(), train.labels)
    for other in (train, mirrored):
        np.testing.assert_array_equal(scoring.clean_mask(test, other), [True] * 3 + [False] * 3)


def test_calibration_intervals_are_percentiles_over_stratified_resamples():
    rng = np.random.default_rng(0)
    labels, probabilities = (rng.random(80) < 0.3).astype(int), rng.random(80)
    found = scoring.calibration_summary(labels, probabilities, intervals.resample_counts(labels, 4000, seed=1))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    classes = [np.flatnonzero(labels == c) for c in (0, 1)]
    drawn = [np.concatenate([rng.choice(members, len(members)) for members in classes]) for _ in range(4000)]
    resampled = [brier_score_loss(labels[index], probabilities[index]) for index in drawn]
    assert found["brier_ci95"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.005)
    assert found["ece_ci95"][0] < found["ece"] < found["ece_ci95"][1]


def test_calibration_intervals_are_the_percentiles_of_a_plain_loop():
    rng = np.random.default_rng(1)
    labels, probabilities = (rng.random(90) < 0.3).astype(int), np.round(rng.random(90), 2)
    counts = intervals.resample_counts(labels, 200)
    found = scoring.calibration_summary(labels, probabilities, counts)
    for name, measure in (("brier", calibration.brier), ("ece", calibration.expected_calibration_error)):
        copies = [(np.repeat(labels, row), np.repeat(probabilities, row)) for row in counts.astype(int)]
        expected = np.percentile([measure(*copy) for copy in copies], [2.5, 97.5])
        np.testing.assert_allclose(found[f"{name}_ci95"], expected, rtol=0, atol=1e-15)


def test_scores_name_thresholds_and_end_with_the_whole_split():
    rng = np.random.default_rng(0)
    labels, probabilities, clean = rng.integers(0, 2, 60), rng.random(60), np.arange(60) < 40
    chosen = calibration.Calibration(1.5, 0.25, "a rule", "val", 78)
    scores = scoring.evaluate_splits({"test": scoring.Scored(labels, probabilities, clean)}, chosen, resamples=100)
    assert [s["n"] for s in scores["splits"].values()] == [60, 40]
    assert scores["splits"]["test"] == intervals.summary(labels, probabilities, resamples=100)
    point = scores["operating_point"]["splits"]
    assert point["clean_test"] == intervals.summary(labels[:40], probabilities[:40], 0.25, resamples=100)
    text = tables.scores_text(scores, Source("phantom", 28, None, ""))
    assert "operating point 0.2500: a rule" in text and "temperature 1.500 fitted on val" in text
    assert text.splitlines()[-1].startswith("PHANTOM data 28×28 (generated, not ultrasound): test AUC")
    assert text.splitlines()[-1].endswith("on 60 images")
    assert f"NPV {tables.with_interval(point['test']['benign'], 'precision')}" in text
