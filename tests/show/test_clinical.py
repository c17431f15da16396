import numpy as np
import pytest
from matplotlib.colors import to_hex
from test_figures import COUNTS, LABELS, PROBABILITIES, overlapping, texts

from common import netbenefit
from common.show import clinical, figures

ROWS = netbenefit.curve(LABELS, PROBABILITIES, COUNTS)
LONG = "Toshiba Aplio XG SSA-790A with an 18L7 linear transducer, software of 2012"
TITLE = "PHANTOM 28×28 (generated), runs/a_very_long_name_of_a_run, test " * 3


def point(threshold: float, probabilities=PROBABILITIES) -> dict:
    return netbenefit.curve(LABELS, probabilities, COUNTS, [threshold])[0]


def row(value: str, **more) -> dict:
    """A row of `subgroups.rows`."""
    found = {"value": value, "n": 1234, "malignant": 400, "unit": "image", "threshold": 0.134, "too_few": False}
    for name, number in (("auc", 0.9), ("recall", 0.96), ("specificity", 0.5), ("calibration_in_the_large", -0.04)):
        found |= {name: number, f"{name}_ci95": [number - 0.05, number + 0.03]}
    return found | more


def entries(subgroups: int) -> list[dict]:
    """All images and some subgroups, of which the last has no malignant image."""
    absent = {name: np.nan for name in ("auc", "recall")} | {f"{name}_ci95": [np.nan] * 2 for name in ("auc", "recall")}
    few = row("U-Systems", n=8, malignant=0, too_few=True, specificity=1.0, specificity_ci95=[0.6, 1.0], **absent)
    return [row("all images"), *[row(f"{i} {LONG}"[: 30 * i]) for i in range(1, subgroups)], few]


@pytest.mark.parametrize(("title", "threshold"), [("short", 0.01), (TITLE, 0.58), ("short", 0.97)])
def test_nothing_in_a_decision_curve_overlaps_or_is_cut_off(title, threshold):
    figure = clinical.decision_curve(ROWS, point(threshold), title)
    assert overlapping(figure) == []
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert low < point(threshold)["net_benefit"] < high and threshold <= axes.get_xlim()[1] <= 1.02


def test_decision_curve_shows_model_all_none_and_the_operating_point():
    figure, at = clinical.decision_curve(ROWS, point(0.134), "title"), point(0.134)
    (axes,), said = figure.axes, texts(figure)
    model, treat_all, none, chosen = axes.lines
    np.testing.assert_allclose(model.get_ydata(), netbenefit.net_benefit(LABELS, PROBABILITIES, netbenefit.THRESHOLDS))
    np.testing.assert_allclose(treat_all.get_ydata(), netbenefit.treat_all(LABELS, netbenefit.THRESHOLDS))
    assert set(none.get_ydata()) == {0} and axes.get_xlim() == (0, 0.6)
    assert (chosen.get_xdata()[0], chosen.get_ydata()[0]) == (0.134, at["net_benefit"])
    assert f"net benefit at the operating point: {at['net_benefit']:.3f} (" in said
    assert f"every image flagged: {at['treat_all']:.3f}, none: 0" in said and "operating point 0.134" in said


def test_decision_curve_ends_where_the_model_is_of_no_more_use():
    probabilities = PROBABILITIES / 4
    rows = netbenefit.curve(LABELS, probabilities, COUNTS)
    (axes,) = clinical.decision_curve(rows, point(0.05, probabilities), "title").axes
    end = axes.get_xlim()[1]
    assert end < 0.3 and all(row["net_benefit"] <= 0 for row in rows if row["threshold"] >= end)


def test_decision_curve_of_a_harmful_operating_point_has_minus_signs():
    probabilities = 1 - PROBABILITIES
    rows = netbenefit.curve(LABELS, probabilities, COUNTS)
    figure = clinical.decision_curve(rows, point(0.5, probabilities), "title")
    assert "net benefit at the operating point: −0." in texts(figure) and overlapping(figure) == []


@pytest.mark.parametrize(("title", "count"), [("short", 2), (TITLE, 4), ("short", 12)])
def test_nothing_in_a_forest_overlaps_or_is_cut_off(title, count):
    note = "AUC cannot be compared, because " + "fewer than two values have 10 images of each class. " * 4
    figure = clinical.forest(entries(count), title, note)
    assert overlapping(figure) == [] and figure.bbox.height / figure.bbox.width < 1.1


def test_forest_has_a_panel_for_each_measure_with_the_value_of_all_images():
    figure = clinical.forest(entries(3), "title", "No difference (p = 0.31).")
    names = [
        "AUC",
        "sensitivity at\nthreshold 0.134",
        "specificity at\nthreshold 0.134",
        "mean P(malignant)\nminus share",
    ]
    assert [axes._left_title.get_text() for axes in figure.axes] == names
    for axes, value in zip(figure.axes, (0.9, 0.96, 0.5, -0.04), strict=True):
        assert axes.lines[0].get_xdata() == [value, value] and axes.lines[0].get_linestyle() == ":"
    (segment,) = figure.axes[3].containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segment, [(-0.09, 0), (-0.01, 0)])
    said = texts(figure)
    assert "−0.04" in said and "95 % intervals. Dotted: all images. No difference (p\u00a0=\u00a00.31)." in said
    assert "1234 images, 400 malignant" in said and " …\n" in said


def test_too_few_images_are_grey_and_said():
    figure = clinical.forest(entries(3), "title")
    label = figure.axes[0].get_yticklabels()[-1]
    assert label.get_text() == "U-Systems\n8 images, 0 malignant, too few" and label.get_color() == figures.MUTED
    assert [text.get_text() for text in figure.axes[0].texts][-1] == "n/a"
    colours = [to_hex(container.lines[0].get_color()).upper() for container in figure.axes[2].containers]
    assert colours == [figures.INK, figures.MODEL, figures.MODEL, figures.MUTED]


def test_forest_of_json():
    """JSON has null for nan."""
    few = {name: None if value is np.nan else value for name, value in entries(1)[-1].items()}
    few |= {"auc_ci95": [None, None], "recall_ci95": [None, None]}
    assert texts(clinical.forest([row("all images"), few], "title")).count("n/a") == 2
