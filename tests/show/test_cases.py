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
    probabilities = untrained.answer(phantoms).probabilities
    given = phantoms, phantoms.labels, probabilities, "title"
    figure, other = (cases.sheet(model, *given) for model in (untrained, onnx_model))
    shown = cases.most_extreme(phantoms.labels, probabilities, 0.4, 3)
    maps, _ = untrained.evidence(phantoms)
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


def test_evidence_of_a_window_lies_in_the_frame_at_the_window(finding, lesion_model, framed):
    said = finding.answer(framed)
    figure, other = (
        cases.sheet(model, framed, framed.labels, said.probabilities, "title") for model in (finding, lesion_model)
    )
    shown = cases.most_extreme(framed.labels, said.probabilities, finding.calibration.threshold, 3)
    maps, windows = finding.evidence(framed)
    assert np.array_equal(windows, said.windows) and len(shown) > 3
    for axes, same, (_, i) in zip(figure.axes, other.axes, shown):
        expected = np.asarray(evidence.overlay(framed.pixels[i], maps[i], 28 * windows[i]))
        drawn = axes.images[0].get_array()
        assert np.array_equal(drawn[:, :28, 0], framed.pixels[i]) and np.array_equal(drawn[:, 29:], expected)
        assert np.abs(same.images[0].get_array().astype(int) - drawn).max() <= 1


def test_windows_are_shown_from_the_worst_to_the_best_beside_the_given_ones(phantoms):
    overlaps = np.random.default_rng(0).permutation(48) / 50
    found, given = np.float32([[0.5, 0.25, 0.25, 0.25]] * 48), np.float32([[0.125, 0.5, 0.5, 0.25]] * 48)
    figure = cases.windows(phantoms, found, given, overlaps, "title")
    order = np.argsort(overlaps)
    captions = [" ".join(axes.get_xlabel().split()) for axes in figure.axes]
    assert captions[:8] == [f"{i}: IoU {overlaps[i]:.2f}" for i in order[:8]]
    shares = [float(text.split()[-1]) for text in captions]
    assert len(set(captions)) == 16 and shares == sorted(shares) and shares[-1] == overlaps.max()
    (tile,) = figure.axes[0].images
    white = np.argwhere((tile.get_array() == 255).all(2))
    assert white.min(0).tolist() == [56, 112] and white.max(0).tolist() == [112, 168]
    coloured = np.argwhere((tile.get_array() == np.round(255 * np.array(to_rgb(evidence.MALIGNANT)))).all(2))
    assert coloured.min(0).tolist() == [112, 28] and coloured.max(0).tolist() == [168, 140]
    assert overlapping(figure) == [] and "IoU" in texts(figure)
    for n in (1, 8, 9):
        few = cases.windows(phantoms[:n], found[:n], given[:n], overlaps[:n], "title")
        assert len([axes for axes in few.axes if axes.axison]) == n
