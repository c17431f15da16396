import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from common import metrics, scoring
from common.calibration import Calibration
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
    found = scoring.calibration_summary(labels, probabilities, 4000, seed=1)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    classes = [np.flatnonzero(labels == c) for c in (0, 1)]
    drawn = [np.concatenate([rng.choice(members, len(members)) for members in classes]) for _ in range(4000)]
    resampled = [brier_score_loss(labels[index], probabilities[index]) for index in drawn]
    assert found["brier_ci95"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.005)
    assert found["ece_ci95"][0] < found["ece"] < found["ece_ci95"][1]


def test_report_names_thresholds_and_ends_with_the_whole_split():
    rng = np.random.default_rng(0)
    labels, probabilities, clean = rng.integers(0, 2, 60), rng.random(60), np.arange(60) < 40
    chosen = Calibration(1.5, 0.25, "a rule", "val", 78)
    report = scoring.report({"test": scoring.Scored(labels, probabilities, clean)}, chosen, resamples=100)
    assert [s["n"] for s in report["splits"].values()] == [60, 40]
    expected = metrics.summary(labels[:40], probabilities[:40], 0.25)
    assert report["operating_point"]["splits"]["clean_test"]["recall"] == expected["recall"]
    text = scoring.report_text(report, Source("phantom", 28, None, ""))
    assert "operating point 0.2500: a rule" in text and "temperature 1.500 fitted on val" in text
    assert text.splitlines()[-1].startswith("PHANTOM data 28×28 (generated, not ultrasound): test AUC")
    assert text.splitlines()[-1].endswith("on 60 images")
    assert f"NPV {tables.with_interval(report['operating_point']['splits']['test']['benign'], 'precision')}" in text
