import numpy as np
from matplotlib.colors import to_rgb
from test_figures import overlapping, texts

from common import evidence
from common.show import cases, figures


def test_the_most_extreme_of_each_outcome():
    labels = np.array([1, 1, 0, 0, 1, 0, 0, 1])
    probabilities = np.array([0.99, 0.02, 0.9, 0.01, 0.4, 0.5, 0.3, 0.1])
    assert cases.most_extreme(labels, probabilities, 0.4, 1) == [
        ("true positive", 0), ("false positive", 2), ("false negative", 1), ("true negative", 3)
    ]  # fmt: skip
    shown = cases.most_extreme(labels, probabilities, 0.4, 9)
    assert [i for _, i in shown] == [0, 4, 2, 5, 1, 7, 3, 6]  # 0.4 is flagged
    assert cases.most_extreme([0, 1], [0.1, 0.9], 0.5, 3) == [("true positive", 1), ("true negative", 0)]


def test_the_sheet_is_of_runs_and_files_alike(untrained, onnx_model, phantoms):
    probabilities = untrained.probabilities(phantoms.pixels)
    given = phantoms.pixels, phantoms.labels, probabilities, "title"
    figure, other = (cases.sheet(model, *given) for model in (untrained, onnx_model))
    shown = cases.most_extreme(phantoms.labels, probabilities, 0.4, 3)
    maps = untrained.evidence(phantoms.pixels)
    for axes, same, (outcome, i) in zip(figure.axes, other.axes, shown):
        assert axes.get_xlabel() == f"image {i}: P = {probabilities[i]:.3f}\n{outcome}" == same.get_xlabel()
        drawn, expected = axes.images[0].get_array(), np.asarray(evidence.overlay(phantoms.pixels[i], maps[i]))
        assert np.array_equal(drawn[:, :28, 0], phantoms.pixels[i]) and np.array_equal(drawn[:, 29:], expected)
        assert np.abs(same.images[0].get_array().astype(int) - drawn).max() <= 1
        frame = figures.MODEL if outcome.startswith("true") else figures.CHOSEN
        assert to_rgb(axes.spines["top"].get_edgecolor()) == to_rgb(frame)
    said = " ".join(texts(figure).split())
    assert "operating point, 0.4000" in said and "mean of an image's map is its logit" in said and "log-odds" in said
    assert overlapping(figure) == []
