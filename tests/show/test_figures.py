import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from common import calibration, comparison, intervals, metrics
from common.errors import UserError
from common.show import figures

THRESHOLDS = {"standard": 0.5, "operating point": 0.134}


@pytest.fixture(scope="module")
def predictions():
    """(labels, probabilities, resampling counts) of a plausible model on 156 images, 42 of them malignant."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(156) < 42).astype(int)
    probabilities = calibration.sigmoid(rng.normal(np.where(labels, 1.3, -2.2), 1.5))
    return labels, probabilities, intervals.resample_counts(labels, 200)


def history(epochs: int, validated: bool = True) -> list[dict]:
    entries = [{"epoch": e, "lr": 3e-4 / e, "train_loss": 0.6 / e} for e in range(1, epochs + 1)]
    validation = {"val_loss": 0.4, "val_accuracy": 0.9, "val_auc": 0.9}
    return [entry | validation for entry in entries] if validated else entries


def written(figure) -> list:
    """Every text that is drawn in a figure, tick labels included."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [axes.title, axes._left_title, *axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            found += [label for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs()) if low <= at <= high]
    return [text for text in found if text.get_text() and text.get_visible()]


def texts(figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join([figure.get_suptitle(), *(text.get_text() for text in written(figure))])


def line(axes, colour: str):
    """The one line of a colour that has more than one point."""
    (found,) = [one for one in axes.lines if one.get_color() == colour and len(one.get_xdata()) > 1]
    return found


def points(axes) -> dict[str, tuple[float, float]]:
    """{name: (x, y)} of the thresholds drawn on a curve."""
    single = [one for one in axes.lines if len(one.get_xdata()) == 1 and "threshold" in one.get_label()]
    return {one.get_label().split(",")[0]: (one.get_xdata()[0], one.get_ydata()[0]) for one in single}


def pixels(figure) -> np.ndarray:
    """The figure as it is written, uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts that are drawn over each other, and texts that leave the figure."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().padded(-2)) for text in written(figure)]
    page = figure.bbox.padded(2)
    outside = [(text, "outside") for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))]
    return outside + [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]


def every_figure(labels, probabilities, counts, title) -> dict:
    """One figure of each kind that is not a sheet of images."""
    folds = [metrics.summary(labels[i::5], probabilities[i::5]) for i in range(5)]
    pooled = intervals.summary(labels, probabilities, resamples=100)
    scores = np.array([[0.8, 0.9], [0.85, np.nan]])
    differences = comparison.paired_bootstrap(labels, probabilities, probabilities[::-1], resamples=100)
    return {
        "curves": figures.training_curves(history(17), 12, title),
        "roc": figures.roc(labels, probabilities, counts, THRESHOLDS, title),
        "precision_recall": figures.precision_recall(labels, probabilities, counts, THRESHOLDS, title),
        "reliability": figures.reliability(labels, probabilities, title),
        "confusion": figures.confusion(labels, probabilities, THRESHOLDS, title),
        "scores": figures.score_histogram(labels, probabilities, THRESHOLDS, title),
        "folds": figures.fold_overview(folds, pooled, title),
        "comparison": figures.comparison(differences, "runs/crossval", "runs/train", title),
        "heat_map": figures.heat_map([1e-4, 3e-4], [0, 0.01], scores, scores / 50, (0, 1), (1, 0), title),
        "importances": figures.importances({"label_smoothing": 0.7, "lr": 0.3}, title),
        "search": figures.search_history([0.8, None, 0.9], title),
    }


def test_wilson_is_scipys():
    n = np.array([1, 7, 16, 16, 400])
    successes = np.array([0, 7, 3, 16, 1])
    expected = [binomtest(int(k), int(m)).proportion_ci(method="wilson") for k, m in zip(successes, n)]
    np.testing.assert_allclose(np.transpose(figures.wilson(successes / n, n)), expected, atol=1e-12)


def test_save_writes_the_same_bytes_twice_and_nothing_else(tmp_path):
    for name in ("a.png", "b.png"):
        figures.save(figures.training_curves(history(5), 3, "title"), tmp_path / name)
    first, second = (tmp_path / name for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]
    with Image.open(first) as image:
        assert image.format == "PNG" and image.width == round(6.4 * figures.DPI) and set(image.info) == {"dpi"}
    with pytest.raises(UserError, match="cannot be written"):
        figures.save(figures.training_curves(history(5), 3, "title"), tmp_path / "absent" / "c.png")


@pytest.mark.parametrize("title", ["short", "A title that takes up two lines of most figures: words and words"])
def test_nothing_overlaps_or_is_cut_off(predictions, title):
    for name, figure in every_figure(*predictions, title).items():
        assert overlapping(figure) == [], name


def test_long_titles_are_broken_and_dollars_are_no_formulas(predictions):
    title = "phantom 28×28 (generated, no evidence of anything), runs/$a_very_$long_name_of_a_run, test " * 2
    for name, figure in every_figure(*predictions, title).items():
        assert overlapping(figure) == [], name
        assert "\n" in figure.get_suptitle()


@pytest.mark.parametrize("best, side", [(2, "left"), (12, "right")])
def test_training_curves_show_the_history_and_the_kept_epoch(best, side):
    figure = figures.training_curves(history(17), best, "title")
    loss, validation, rate = figure.axes
    np.testing.assert_array_equal(line(loss, figures.MUTED).get_ydata(), [e["train_loss"] for e in history(17)])
    np.testing.assert_array_equal(line(rate, figures.MUTED).get_ydata(), [e["lr"] for e in history(17)])
    assert all(line(axes, figures.CHOSEN).get_xdata() == [best, best] for axes in figure.axes)
    (kept,) = [text for text in loss.texts if text.get_text() == f"kept: epoch {best}"]
    assert kept.get_ha() == side
    assert overlapping(figure) == []  # also where accuracy and AUC end at the same value


@pytest.mark.parametrize("epochs", [1, 4])
def test_training_curves_without_validation(epochs):
    figure = figures.training_curves(history(epochs, validated=False), epochs, "title")
    assert len(figure.axes) == 2 and "validation" not in texts(figure)
    assert overlapping(figure) == [] and "0.5" not in [text.get_text() for text in figure.axes[1].get_xticklabels()]


def test_roc_is_scikit_learns(predictions):
    labels, probabilities, counts = predictions
    figure = figures.roc(labels, probabilities, counts, THRESHOLDS, "title")
    (axes,) = figure.axes
    false_rate, true_rate, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    np.testing.assert_allclose(line(axes, figures.MODEL).get_xydata(), np.transpose([false_rate, true_rate]))
    assert f"AUC {roc_auc_score(labels, probabilities):.3f}, 95 % interval" in texts(figure)
    for name, threshold in THRESHOLDS.items():
        called = probabilities >= threshold
        expected = called[labels == 0].mean(), called[labels == 1].mean()
        assert points(axes)[name] == pytest.approx(expected)
        assert f"{name}, threshold {threshold}: sensitivity {expected[1]:.3f}" in texts(figure)
    assert "42 malignant" in texts(figure) and "114 benign" in texts(figure)


def test_area_under_the_drawn_precision_recall_steps_is_average_precision(predictions):
    labels, probabilities, counts = predictions
    figure = figures.precision_recall(labels, probabilities, counts, THRESHOLDS, "title")
    (axes,) = figure.axes
    steps = line(axes, figures.MODEL)
    recall, precision = steps.get_xdata(), steps.get_ydata()
    assert steps.get_drawstyle() == "steps-pre" and recall[0] == 0 and recall[-1] == 1 and (np.diff(recall) > 0).all()
    area = average_precision_score(labels, probabilities)
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(area)
    assert f"AUPR {area:.3f}, 95 % interval" in texts(figure) and "share of malignant 0.27" in texts(figure)
    called = probabilities >= 0.5
    assert points(axes)["standard"] == pytest.approx((called[labels == 1].mean(), labels[called].mean()))


def test_precision_recall_where_the_highest_scores_are_benign():
    labels, probabilities = np.array([0, 0, 1, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    figure = figures.precision_recall(labels, probabilities, intervals.resample_counts(labels, 50), THRESHOLDS, "title")
    steps = line(figure.axes[0], figures.MODEL)
    np.testing.assert_allclose(steps.get_xydata(), [(0, 1 / 3), (0.5, 1 / 3), (1, 1 / 2)])


def test_reliability_draws_the_bins_with_wilson_intervals(predictions):
    labels, probabilities, _ = predictions
    figure = figures.reliability(labels, probabilities, "title")
    axes, strip = figure.axes
    predicted, observed, sizes = calibration.reliability(labels, probabilities)
    (bars,) = axes.containers
    drawn, _, (limits,) = bars.lines
    np.testing.assert_allclose(drawn.get_xydata(), np.transpose([predicted, observed]))
    low, high = figures.wilson(observed, sizes)
    np.testing.assert_allclose([[bar[0, 1], bar[1, 1]] for bar in limits.get_segments()], np.transpose([low, high]))
    assert f"Brier score {calibration.brier(labels, probabilities):.3f}" in texts(figure)
    error = calibration.expected_calibration_error(labels, probabilities)
    assert f"expected calibration error {error:.3f} (10 bins of equal mass)" in texts(figure)
    assert sum(bar.get_height() for bar in strip.patches) == len(labels)


def test_confusion_counts_and_percentages(predictions):
    labels, probabilities, _ = predictions
    figure = figures.confusion(labels, probabilities, THRESHOLDS, "title")
    for axes, threshold in zip(figure.axes, THRESHOLDS.values(), strict=True):
        called = probabilities >= threshold
        for (row, truth), (column, call) in [(r, c) for r in enumerate((1, 0)) for c in enumerate((True, False))]:
            count = ((labels == truth) & (called == call)).sum()
            inside = [text for text in axes.texts if np.round(text.get_position()).tolist() == [column, row]]
            percentage = f"{100 * count / (labels == truth).sum():.0f} %"
            assert [text.get_text() for text in inside] == [str(count), percentage]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["malignant", "benign"]


def test_confusion_without_a_class_has_no_share():
    figure = figures.confusion(np.zeros(4, int), np.full(4, 0.2), {"standard": 0.5}, "title")
    assert texts(figure).count("n/a") == 2 and "100 %" in texts(figure)


def test_score_histogram_counts_every_image_of_its_class(predictions):
    labels, probabilities, _ = predictions
    malignant, benign = figures.score_histogram(labels, probabilities, THRESHOLDS, "title").axes
    for axes, of_class, colour in ((malignant, 1, figures.MALIGNANT), (benign, 0, figures.BENIGN)):
        expected = np.histogram(probabilities[labels == of_class], np.linspace(0, 1, 21))[0]
        np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], expected)
        assert {bar.get_facecolor()[:3] for bar in axes.patches} == {to_rgb(colour)}
        assert [one.get_xdata()[0] for one in axes.lines] == list(THRESHOLDS.values())


@pytest.mark.parametrize("labels", [np.zeros(9, int), np.array([1]), np.array([0, 1])])
def test_a_missing_class_or_few_images_give_figures_that_say_so(labels):
    probabilities = np.linspace(0.1, 0.9, len(labels))
    counts = intervals.resample_counts(labels, 20)
    for draw in (figures.roc, figures.precision_recall):
        figure = draw(labels, probabilities, counts, THRESHOLDS, "title")
        assert overlapping(figure) == []
        undefined = len(set(labels)) == 1 if draw is figures.roc else not labels.any()
        (headline,) = [axes.get_title("left") for axes in figure.axes]
        assert ("n/a: " in headline) == undefined
    assert overlapping(figures.reliability(labels, probabilities, "title")) == []
    assert overlapping(figures.confusion(labels, probabilities, THRESHOLDS, "title")) == []
    assert overlapping(figures.score_histogram(labels, probabilities, THRESHOLDS, "title")) == []


def test_fold_overview_shows_every_fold_mean_and_pooled_value(predictions):
    labels, probabilities, _ = predictions
    folds = [metrics.summary(labels[i::5], probabilities[i::5]) for i in range(5)]
    pooled = intervals.summary(labels, probabilities, resamples=50)
    figure = figures.fold_overview(folds, pooled, "title")
    for axes, name in zip(figure.axes, ("auc", "accuracy"), strict=True):
        values = [fold[name] for fold in folds]
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), values)
        assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in texts(figure)
        low, high = pooled[f"{name}_ci95"]
        assert f"{pooled[name]:.3f} ({low:.3f} to {high:.3f})" in texts(figure)


def test_fold_overview_of_a_fold_without_a_class(tmp_path):
    fold, pooled = metrics.summary([0, 0], [0.1, 0.2]), intervals.summary([0, 0], [0.1, 0.2], resamples=5)
    figure = figures.fold_overview([fold, fold | {"auc": None}], pooled, "title")
    figures.save(figure, tmp_path / "folds.png")
    assert "n/a ± n/a" in texts(figure) and "1.000 (1.000 to 1.000)" in texts(figure)


def test_comparison_draws_differences_with_intervals(tmp_path):
    differences = {
        "accuracy": {"difference": -0.02, "ci95": [-0.05, 0.01]},
        "auc": {"difference": np.nan, "ci95": [np.nan, np.nan]},
    }
    figure = figures.comparison(differences, "runs/a", "runs/b", "title")
    figures.save(figure, tmp_path / "comparison.png")
    assert "−0.020 (−0.050 to +0.010)" in texts(figure) and "n/a" in texts(figure)
    assert "runs/a minus runs/b" in texts(figure)


def test_heat_map_frames_the_chosen_cell_and_the_best_and_names_every_score():
    scores, errors = np.array([[0.81, 0.92, np.nan]]), np.array([[0.01, 0.02, np.nan]])
    figure = figures.heat_map([3e-4], [0, 1e-3, 1e-2], scores, errors, (0, 0), (0, 1), "title")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.810\n± 0.010", "0.920\n± 0.020", "n/a"]
    assert {frame.get_label(): frame.get_xy() for frame in axes.patches} == {
        "chosen": (-0.5, -0.5),
        "best by mean": (0.5, -0.5),
    }
    shades = axes.images[0].get_array()[0]
    assert shades[1].sum() < shades[0].sum()  # higher is darker
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.001", "0.01"]
    assert overlapping(figure) == [] and "best by mean" in texts(figure)


@pytest.mark.parametrize("side", [1, 7])
def test_heat_map_of_one_cell_and_of_many(side):
    values, scores = np.geomspace(1e-4, 1e-2, side), np.linspace(0.8, 0.9, side**2).reshape(side, side)
    figure = figures.heat_map(values, values, scores, scores / 50, (0, 0), (0, 0), "title")
    (frame,) = figure.axes[0].patches
    assert frame.get_label() == "chosen, best by mean" and overlapping(figure) == []


def test_importances_are_named_with_their_shares():
    figure = figures.importances({"label_smoothing": 0.625, "lr": 0.375, "wd": 0.0}, "title")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.625, 0.375, 0.0]
    assert [text.get_text() for text in axes.texts] == ["62 %", "38 %", "0 %"]
    assert "label smoothing" in texts(figure) and overlapping(figure) == []


def test_search_history_marks_pruned_trials_and_the_best_so_far():
    figure = figures.search_history([0.7, None, 0.9, 0.8], "title", "AUC")
    (axes,) = figure.axes
    drawn = {one.get_label(): one for one in axes.lines}
    np.testing.assert_array_equal(drawn["best so far"].get_ydata(), [0.7, 0.7, 0.9, 0.9])
    np.testing.assert_array_equal(drawn["pruned trial"].get_xdata(), [1])
    assert "best AUC 0.900, trial 2" in texts(figure)


def test_search_history_where_everything_was_pruned(tmp_path):
    figures.save(figures.search_history([None, None], "title"), tmp_path / "study.png")


def test_overlay_keeps_grey_where_there_is_no_heat():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for heat in (np.zeros(images.shape), np.full(images.shape, np.nan)):
        np.testing.assert_array_equal(figures.overlay(images, heat), images[..., None].repeat(3, -1))
    heated = figures.overlay(images, np.ones(images.shape)).astype(int)
    assert (heated[..., 0] - heated[..., 2] > 50).all()  # yellow


def test_image_sheet_shows_every_pixel_as_a_square():
    images = np.random.default_rng(0).integers(0, 256, (5, 7, 9), np.uint8)
    figure = figures.image_sheet(images, [f"image {i}" for i in range(5)], 3, "title", enlarge=10)
    drawn = pixels(figure)
    corners = [(round(i.get_extent()[3]), round(i.get_extent()[0])) for i in figure.axes[0].images]
    for image, (top, left) in zip(images, corners, strict=True):
        expected = image.repeat(10, 0).repeat(10, 1)[..., None].repeat(3, -1)
        np.testing.assert_array_equal(drawn[top : top + 70, left : left + 90], expected)
    assert len({left for _, left in corners}) == 3 and len({top for top, _ in corners}) == 2
    assert overlapping(figure) == []


def test_image_sheet_of_pairs_with_heat_and_frames():
    pairs = np.full((2, 2, 28, 28), 100, np.uint8)
    heat = np.stack([np.full((2, 28, 28), np.nan), np.ones((2, 28, 28))], 1)
    captions = ["a caption that is much too long for one line below a pair of images", "short"]
    figure = figures.image_sheet(pairs, captions, 2, "title", heat=heat, frames=["#009E73", "#CC79A7"], note="note")
    drawn, first = pixels(figure), figure.axes[0].images[0]
    left, right, bottom, top = (round(edge) for edge in first.get_extent())
    assert (right - left, bottom - top) == (2 * 168 + figures.HAIR, 168)
    assert (drawn[top, left] == 100).all() and drawn[top, right - 1, 2] < 60
    assert (drawn[top, left + 168] == 255).all()
    np.testing.assert_allclose(drawn[top - 2, left + 20] / 255, to_rgb("#009E73"), atol=0.01)
    assert overlapping(figure) == []


@pytest.mark.parametrize("n, side", [(0, 28), (1, 28), (3, 224)])
def test_image_sheet_of_few_images(n, side):
    figure = figures.image_sheet(np.zeros((n, side, side), np.uint8), ["caption"] * n, 6, "A title of some length")
    assert overlapping(figure) == [] and pixels(figure).shape[1] >= 4 * figures.DPI


def test_grad_cam_sheet_says_truth_probability_and_whether_it_is_right():
    images, heat = np.full((3, 28, 28), 50, np.uint8), np.ones((3, 28, 28), np.float32)
    figure = figures.grad_cam_sheet(images, heat, [1, 0, 0], [0.03, 0.96, 0.5], [12, 7, 140], "title")
    captions = [text.get_text() for text in figure.axes[0].texts[2:]]
    assert captions == [
        "image 12, malignant\nP(malignant) 0.03, wrong",
        "image 7, benign\nP(malignant) 0.96, wrong",
        "image 140, benign\nP(malignant) 0.50, wrong",
    ]
    assert {patch.get_facecolor()[:3] for patch in figure.axes[0].patches} == {to_rgb(figures.WRONG)}
    assert overlapping(figure) == []
