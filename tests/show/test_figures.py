from math import nan

import numpy as np
import pytest
from common_fixtures import summary_with_intervals
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from common import calibration, comparison, intervals, metrics
from common.show import figures, searchfigures, tables
from results import table

THRESHOLDS = {"standard": 0.5, "operating point": 0.134}
AUCS = {
    "frame": {"A, far": (0.76, 0.7, 0.82)},
    "lesion": {"home": (0.91, 0.86, 0.96), "A, far": (0.86, 0.8, 0.9), "B, far": (0.9, 0.87, 0.93)},
}
RESULTS = np.full((300, 400, 3), 90, np.uint8), "White: the window. " * 5, AUCS, {"home": (0.956, "best published")}


# Of a plausible model on 156 images, 42 of them malignant.
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.arange(156) < 42).astype(int)
PROBABILITIES = calibration.sigmoid(RNG.normal(np.where(LABELS, 1.3, -2.2), 1.5))
COUNTS = intervals.resample_counts(LABELS, resamples=200)
POOLED = summary_with_intervals(LABELS, PROBABILITIES, COUNTS)
FOLDS = [metrics.summary(LABELS[i::5], PROBABILITIES[i::5]) for i in range(5)]


def history(epochs: int, validated: bool = True) -> list[dict]:
    entries = [{"epoch": e, "lr": 3e-4 / e, "train_loss": 0.6 / e} for e in range(1, epochs + 1)]
    validation = {"val_loss": 0.4, "val_accuracy": 0.9, "val_auc": 0.9}
    return [entry | validation for entry in entries] if validated else entries


def written(figure) -> list:
    """Every text that is drawn in a figure, tick labels included."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    found = [*figure.texts, *(text for legend in legends for text in legend.get_texts())]
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


def points(axes) -> list[tuple[float, float]]:
    """Where the thresholds lie on a curve, in order."""
    single = [one for one in axes.lines if len(one.get_xdata()) == 1 and "threshold" in one.get_label()]
    return [(one.get_xdata()[0], one.get_ydata()[0]) for one in single]


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts that are drawn over each other, and texts that leave the figure."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent().padded(-2)) for text in written(figure)]
    page = figure.bbox.padded(2)
    outside = [(text, "outside") for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))]
    return outside + [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]


def every_figure(title: str) -> dict:
    """One figure of each kind that is not a sheet of images."""
    cells = {(1e-4, 0): (0.8, 0.01), (1e-4, 0.01): (0.9, 0.01), (3e-4, 0): (0.85, 0.02), (3e-4, 0.01): (nan, nan)}
    differences = comparison.paired_bootstrap(LABELS, PROBABILITIES, PROBABILITIES[::-1], COUNTS)
    return {
        "curves": figures.training_curves(history(17), 12, title),
        "roc": figures.roc(LABELS, PROBABILITIES, COUNTS, THRESHOLDS, title),
        "precision_recall": figures.precision_recall(LABELS, PROBABILITIES, COUNTS, THRESHOLDS, title),
        "reliability": figures.reliability(LABELS, PROBABILITIES, title),
        "confusion": figures.confusion(LABELS, PROBABILITIES, THRESHOLDS, title),
        "scores": figures.score_histogram(LABELS, PROBABILITIES, THRESHOLDS, title),
        "folds": figures.fold_overview(FOLDS, POOLED, title),
        "comparison": figures.comparison(differences, "runs/crossval", "runs/train", title),
        "heat_map": searchfigures.heat_map(cells, (1e-4, 0), (1e-4, 0.01), title),
        "importances": searchfigures.importances({"label_smoothing": 0.625, "lr": 0.375, "wd": 0.0}, title),
        "results": table.figure_of(*RESULTS, title),
        "search": searchfigures.search_history([0.7, None, 0.9, 0.8], title),
    }


@pytest.fixture(scope="module")
def drawn() -> dict:
    """`every_figure` under a short title."""
    return every_figure("title")


def test_save_writes_the_same_bytes_twice_and_nothing_else(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        figures.save(figures.training_curves(history(5), 3, "title"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes() and sorted(tmp_path.iterdir()) == paths
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and image.width == round(7.2 * 150) and set(image.info) == {"dpi"}


@pytest.mark.parametrize("title", ["short", "PHANTOM 28×28 (generated), runs/$a_very_$long_name_of_a_run, test " * 3])
def test_nothing_overlaps_or_is_cut_off(title):
    """Long titles are broken, and dollars are no formulas."""
    for name, figure in every_figure(title).items():
        assert overlapping(figure) == [] and ("\n" in figure.get_suptitle()) == (title != "short"), name


def test_training_curves_show_the_history_and_the_kept_epoch(drawn):
    figure = drawn["curves"]
    loss, _, rate = figure.axes
    np.testing.assert_array_equal(line(loss, figures.MUTED).get_ydata(), [e["train_loss"] for e in history(17)])
    np.testing.assert_array_equal(line(rate, figures.MUTED).get_ydata(), [e["lr"] for e in history(17)])
    assert all(line(axes, figures.CHOSEN).get_xdata() == [12, 12] for axes in figure.axes)
    assert "kept: epoch 12" in texts(figure) and "accuracy" in texts(figure)


def test_training_curves_of_one_epoch_without_validation():
    figure = figures.training_curves(history(1, validated=False), 1, "title")
    assert len(figure.axes) == 2 and "validation" not in texts(figure)
    assert overlapping(figure) == [] and "0.5" not in [text.get_text() for text in figure.axes[1].get_xticklabels()]


def test_roc_is_scikit_learns(drawn):
    (axes,), said = drawn["roc"].axes, texts(drawn["roc"])
    false_rate, true_rate, _ = roc_curve(LABELS, PROBABILITIES, drop_intermediate=False)
    np.testing.assert_allclose(line(axes, figures.MODEL).get_xydata(), np.transpose([false_rate, true_rate]))
    assert f"AUC, 95 % interval: {roc_auc_score(LABELS, PROBABILITIES):.3f} (" in said
    for (name, threshold), point in zip(THRESHOLDS.items(), points(axes), strict=True):
        flagged = PROBABILITIES >= threshold
        assert point == pytest.approx((flagged[LABELS == 0].mean(), flagged[LABELS == 1].mean()))
        assert f"{name}, threshold {threshold}: sensitivity {point[1]:.3f}" in said
    assert "42 malignant" in said and "114 benign" in said


def test_area_under_the_drawn_precision_recall_steps_is_average_precision(drawn):
    (axes,), said = drawn["precision_recall"].axes, texts(drawn["precision_recall"])
    steps = line(axes, figures.MODEL)
    recall, precision = steps.get_xdata(), steps.get_ydata()
    assert steps.get_drawstyle() == "steps-pre" and recall[0] == 0 and recall[-1] == 1 and (np.diff(recall) > 0).all()
    area = average_precision_score(LABELS, PROBABILITIES)
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(area)
    assert f"AUPR, 95 % interval: {area:.3f} (" in said and "the share of malignant, 0.27" in said
    flagged = PROBABILITIES >= 0.5
    assert points(axes)[0] == pytest.approx((flagged[LABELS == 1].mean(), LABELS[flagged].mean()))


def test_precision_recall_where_the_highest_scores_are_benign():
    labels, probabilities = np.array([0, 0, 1, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    counts = intervals.resample_counts(labels, resamples=50)
    figure = figures.precision_recall(labels, probabilities, counts, THRESHOLDS, "title")
    steps = line(figure.axes[0], figures.MODEL)
    np.testing.assert_allclose(steps.get_xydata(), [(0, 1 / 3), (0.5, 1 / 3), (1, 1 / 2)])


def test_reliability_draws_the_bins_with_exact_intervals(drawn):
    (axes, strip), said = drawn["reliability"].axes, texts(drawn["reliability"])
    predicted, observed, sizes = calibration.reliability(LABELS, PROBABILITIES)
    (bars,) = axes.containers
    bins, _, (limits,) = bars.lines
    np.testing.assert_allclose(bins.get_xydata(), np.transpose([predicted, observed]))
    ends = [bar[:, 1] for bar in limits.get_segments()]
    exact = [intervals.clopper_pearson(share * n, n) for share, n in zip(observed, sizes)]
    np.testing.assert_allclose(ends, exact, atol=1e-9)
    found = calibration.summary(LABELS, PROBABILITIES)
    assert f"Brier score {found['brier']:.3f}" in said
    assert f"expected calibration error {found['ece']:.3f} (10 bins of equal mass)" in said
    assert sum(bar.get_height() for bar in strip.patches) == len(LABELS)


def test_confusion_counts_and_percentages(drawn):
    cells = {(0, 0): (1, True), (1, 0): (1, False), (0, 1): (0, True), (1, 1): (0, False)}  # place: truth, flagged
    for axes, threshold in zip(drawn["confusion"].axes, THRESHOLDS.values(), strict=True):
        for place, (truth, flagged) in cells.items():
            counted = (PROBABILITIES[LABELS == truth] >= threshold) == flagged
            inside = [text.get_text() for text in axes.texts if tuple(np.round(text.get_position())) == place]
            assert inside == [f"{counted.sum()}", f"{100 * counted.mean():.0f} %"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["malignant", "benign"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["at or above", "below"]


def test_score_histogram_counts_every_image_of_its_class(drawn):
    colours = {1: figures.MALIGNANT, 0: figures.BENIGN}
    for axes, (label, colour) in zip(drawn["scores"].axes, colours.items(), strict=True):
        expected = np.histogram(PROBABILITIES[LABELS == label], np.linspace(0, 1, 21))[0]
        np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], expected)
        assert {bar.get_facecolor()[:3] for bar in axes.patches} == {to_rgb(colour)}
        assert [one.get_xdata()[0] for one in axes.lines] == list(THRESHOLDS.values())


@pytest.mark.parametrize("labels", [np.zeros(9, int), np.array([1]), np.array([0, 1])])
def test_a_missing_class_or_few_images_give_figures_that_say_so(labels):
    probabilities, one_class = np.linspace(0.1, 0.9, len(labels)), len(set(labels)) == 1
    given = labels, probabilities, intervals.resample_counts(labels, resamples=20), THRESHOLDS, "title"
    roc, precision_recall = figures.roc(*given), figures.precision_recall(*given)
    assert ("n/a, " in roc.axes[0].get_title("left")) == one_class
    assert ("n/a, " in precision_recall.axes[0].get_title("left")) == (not labels.any())
    confusion = figures.confusion(labels, probabilities, THRESHOLDS, "title")
    assert texts(confusion).count("n/a") == 4 * one_class  # no share, at two thresholds
    scores = figures.score_histogram(labels, probabilities, THRESHOLDS, "title")
    for figure in (roc, precision_recall, confusion, scores, figures.reliability(labels, probabilities, "title")):
        assert overlapping(figure) == []


def test_rows_of_intervals_say_their_numbers(drawn):
    """Of folds, with mean and pooled value, also where a fold lacks a class, and of differences."""
    for axes, name in zip(drawn["folds"].axes, ("auc", "accuracy"), strict=True):
        values = [fold[name] for fold in FOLDS]
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), values)
        assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in texts(drawn["folds"])
        assert tables.with_limits(POOLED[name], POOLED[f"{name}_ci95"]) in texts(drawn["folds"])
    benign = [0, 0], [0.1, 0.2]
    fold, pooled = metrics.summary(*benign), summary_with_intervals(*benign, np.ones((5, 2)))
    figure = figures.fold_overview([fold, fold | {"auc": None}], pooled, "title")
    assert texts(figure).count("n/a") == 2 and "nan" not in texts(figure) and overlapping(figure) == []
    assert "1.000 (1.000 to 1.000)" in texts(figure)
    differences = {"accuracy": {"difference": -0.02, "ci95": [-0.05, 0.01]}}
    differences["auc"] = {"difference": nan, "ci95": [nan, nan]}
    said = texts(figures.comparison(differences, "runs/a", "runs/b", "title"))
    assert "−0.020 (−0.050 to +0.010)" in said and "n/a" in said and "runs/a minus runs/b" in said


def test_results_shows_a_picture_and_each_auc_with_its_interval_at_its_place(drawn):
    left, right = drawn["results"].axes
    assert left.images[0].get_array().shape == RESULTS[0].shape and "White: the window." in left.get_title(loc="left")
    assert [text.get_text() for text in right.get_xticklabels()] == ["home", "A,\nfar", "B,\nfar"]
    series = {bars.get_label(): bars for bars in right.containers}
    assert list(series) == list(AUCS) and all(len(caps) == 2 for _, caps, _ in series.values())
    ends = [part[:, 1].tolist() for part in series["lesion"][2][0].get_segments()]
    assert ends == [[0.86, 0.96], [0.8, 0.9], [0.87, 0.93]]
    (star,) = [line for line in right.lines if line.get_label() == "best published"]
    assert star.get_ydata() == [0.956] and round(star.get_xdata()[0]) == 0


def test_heat_map_frames_the_chosen_cell_and_the_best_and_names_every_score(drawn):
    (axes,) = drawn["heat_map"].axes
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0, 0): "0.800\n± 0.010", (1, 0): "0.900\n± 0.010", (0, 1): "0.850\n± 0.020", (1, 1): "n/a"}
    framed = {frame.get_label(): frame.get_xy() for frame in axes.patches}
    assert framed == {"chosen": (-0.5, -0.5), "best by mean": (0.5, -0.5)}
    shades = axes.images[0].to_rgba(axes.images[0].get_array())[0, :, :3]
    assert shades[1].sum() < shades[0].sum()  # higher is darker
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01"]


@pytest.mark.parametrize("side", [1, 7])
def test_heat_map_of_one_cell_and_of_many(side):
    values = np.geomspace(1e-4, 1e-2, side)
    cells = {(lr, wd): (0.8 + lr, wd) for lr in values for wd in values}
    figure = searchfigures.heat_map(cells, (values[0], values[0]), (values[0], values[0]), "title")
    (frame,) = figure.axes[0].patches
    assert frame.get_label() == "chosen, best by mean" and overlapping(figure) == []


def test_a_search_shows_pruned_trials_the_best_so_far_and_what_each_setting_explains(drawn):
    (axes,) = drawn["search"].axes
    lines = {one.get_label(): one for one in axes.lines}
    np.testing.assert_array_equal(lines["best so far"].get_ydata(), [0.7, 0.7, 0.9, 0.9])
    np.testing.assert_array_equal(lines["pruned trial"].get_xdata(), [1])
    assert "best AUC 0.900, trial 2" in texts(drawn["search"])
    assert "best AUC" not in texts(searchfigures.search_history([None, None], "title"))
    (axes,) = drawn["importances"].axes
    assert [bar.get_width() for bar in axes.patches] == [0.625, 0.375, 0.0]
    assert [text.get_text() for text in axes.texts] == ["62 %", "38 %", "0 %"]
    assert "label smoothing" in texts(drawn["importances"])


@pytest.mark.parametrize("n, side", [(0, 28), (1, 28), (5, 28), (3, 224)])
def test_image_sheet_shows_every_image_with_its_caption(n, side):
    images = np.random.default_rng(0).integers(0, 256, (n, 1, side, side), np.uint8)
    figure = figures.image_sheet(images, captions := [f"image {i}" for i in range(n)], 3, "A title of some length")
    for (image,), axes in zip(images, figure.axes):
        (tile,) = axes.images
        np.testing.assert_array_equal(tile.get_array(), image)
        assert (tile.get_interpolation(), tile.get_clim()) == ("nearest", (0, 255))
    assert [axes.get_xlabel() for axes in figure.axes[:n]] == captions
    assert not any(axes.axison for axes in figure.axes[n:])
    assert overlapping(figure) == [] and figure.get_figwidth() >= 4


@pytest.mark.parametrize("colours", [(), (3,)])
def test_image_sheet_of_pairs_with_frames(colours):
    pairs = np.random.default_rng(0).integers(0, 200, (2, 2, 56, 56, *colours), np.uint8)
    captions = ["a caption that is much too long for one line below a pair of images", "short"]
    frames = [figures.MODEL, figures.CHOSEN]
    figure = figures.image_sheet(pairs, captions, 2, "title", frames=frames, note="note")
    for axes, (left, right), colour in zip(figure.axes, pairs, frames, strict=True):
        white = np.full_like(left[:, :2], 255)
        np.testing.assert_array_equal(axes.images[0].get_array(), np.hstack([left, white, right]))
        assert axes.spines["left"].get_visible() and to_rgb(axes.spines["left"].get_edgecolor()) == to_rgb(colour)
    assert overlapping(figure) == [] and "note" in texts(figure)
