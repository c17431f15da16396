"""Where a model of two looks looks: at boxes that are given or found, in frames that are read again as stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from common_fixtures import BOXES
from conftest import refusal
from PIL import Image

from common import lesion, looks, model
from common.boxes import in_shares
from common.window import window


def stored(images) -> list[np.ndarray]:
    """The frames as their files have them."""
    return [np.array(Image.open(file)) for file in images.table["_file"]]


def test_boxes_that_are_given_are_taken_and_the_others_found(finding, framed):
    found, given = (looks.look(finding.predictor, framed, given) for given in (False, True))
    boxes, sure = looks.find_lesions(finding.predictor.finder, framed)
    assert (
        np.array_equal(found.boxes, boxes) and np.array_equal(found.found, sure) and len(np.unique(boxes, axis=0)) > 3
    )
    assert np.array_equal(given.boxes[:4], BOXES.astype(np.float32)) and given.found[:4].tolist() == [1] * 4
    assert np.array_equal(given.boxes[4:], boxes[4:]) and np.array_equal(given.found[4:], sure[4:])
    assert (sure > 0).all() and (sure < 1).all()
    x, y, width, height = given.boxes.T
    side = 2.5 * np.maximum(width, height)
    windows = np.stack([x + (width - side) / 2, y + (height - side) / 2, side, side], 1)
    np.testing.assert_allclose(given.windows, in_shares(windows, framed.sizes), atol=1e-6)
    assert np.array_equal(given.images.pixels, framed.pixels) and given.images.boxes[:4].tolist() == BOXES.tolist()


def test_a_box_that_is_found_is_around_the_hottest_part_of_the_whole_frame(finding, framed):
    """By hand: each frame squashed to what the network of the frame sees, and the mirror image's map mirrored back."""
    network, heat = finding.predictor.members[0].frame, []
    for frame in stored(framed):
        seen = Image.fromarray(frame).resize((28, 28), Image.Resampling.BILINEAR)
        both = torch.from_numpy(np.stack([seen, np.asarray(seen)[:, ::-1]])) / 255
        with torch.inference_mode():
            own, other = network.logits_and_heat(both)[1].sigmoid()
        heat.append((own + other.flip(1)) / 2)
    boxes, sure = looks.find_lesions(finding.predictor.finder, framed)
    np.testing.assert_allclose(sure, [one.max() for one in heat], atol=0.02)  # a grey level apart
    shares = lesion.box_of(torch.stack(heat)).numpy() * framed.sizes[:, [1, 0, 1, 0]]
    assert np.median(np.abs(boxes - shares)) < 0.6  # whole pixels


def test_a_window_is_cut_out_of_the_frame_as_stored(finding, framed):
    placed = looks.look(finding.predictor, framed, given=True)
    pillow = []
    for i, (frame, (x, y, width, height)) in enumerate(zip(stored(framed), placed.windows)):
        x, width, y, height = x * frame.shape[1], width * frame.shape[1], y * frame.shape[0], height * frame.shape[0]
        box = torch.tensor([[x, y, width, height]])
        expected = window(torch.from_numpy(frame)[None], box, 28)[0].numpy()
        assert np.abs(placed.images.windows[i] - expected).max() <= 1  # the box has come from shares
        if x >= 0 and y >= 0 and x + width <= frame.shape[1] and y + height <= frame.shape[0]:
            resized = Image.fromarray(frame).resize((28, 28), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
            pillow.append(np.abs(placed.images.windows[i].astype(int) - np.asarray(resized)).max())
    assert len(pillow) >= 2 and max(pillow) <= 1
    outside = placed.images.windows[1]  # whose window begins 17.5 pixels of 75 left of the frame and above it
    assert not outside[:, :7].any() and not outside[:7].any() and outside[7:, 7:].all()


def test_predictions_are_of_both_looks(finding, framed):
    logits, sure = looks.find_and_predict(finding.predictor, framed, given=True)
    placed = looks.look(finding.predictor, framed, given=True)
    assert [values.shape for values in placed.inputs] == [(6, 2, 28, 28), (6, 2)]
    height, width = framed.sizes[0]
    expected = [np.log(BOXES[0, axis] / max(width, height)) for axis in (2, 3)]
    np.testing.assert_allclose(placed.extents[0], expected, rtol=1e-5)
    parts = [
        model.predict(model.Predictor([network], True), pixels)
        for network, pixels in zip(
            (finding.predictor.members[0].window, finding.predictor.members[0].frame),
            (placed.images.windows, framed.pixels),
        )
    ]
    parts[0] += placed.extents @ [-0.8, 1.4] + 0.3  # what the box adds in `finding`
    np.testing.assert_allclose(logits, np.mean(parts, 0), atol=1e-5)
    assert np.array_equal(sure, placed.found) and np.abs(parts[0] - parts[1]).min() > 1e-3
    by_run = finding.answer(framed, given=True)
    assert np.array_equal(by_run.probabilities, finding.calibration.probabilities(logits))
    assert np.array_equal(by_run.windows, placed.windows) and np.array_equal(by_run.found, sure)


def test_where_a_model_looks_at_the_whole_picture_nothing_is_sought(untrained, phantoms):
    looked = looks.look(untrained.predictor, phantoms, given=True)
    assert looked.images is phantoms and np.isnan(looked.boxes).all() and looked.boxes.shape == (48, 4)
    assert looked.windows.tolist() == [[0, 0, 1, 1]] * 48 and looked.found.tolist() == [1] * 48
    logits, _ = looks.find_and_predict(untrained.predictor, phantoms)
    assert np.array_equal(logits, model.predict(untrained.predictor, phantoms.pixels))


def test_a_frame_that_is_gone_when_windows_are_cut_is_named(finding, framed, tmp_path):
    gone = replace(framed, table=framed.table.assign(_file=str(tmp_path / "gone.png")))
    assert str(tmp_path / "gone.png") in refusal(looks.look, finding.predictor, gone)


def test_frames_of_arrays_are_their_pixels(finding, framed):
    arrays = replace(framed, table=framed.table.drop(columns="_file"), sizes=np.full((6, 2), 28))
    placed = looks.place_windows(arrays, np.tile(np.float32([0, 0, 28, 28]), (6, 1)))
    assert np.array_equal(placed.windows, framed.pixels)


@pytest.mark.parametrize("boxed, threshold", [(200, 0.1 + 1 / 1000), (50, 0.1), (1, 0.1), (0, 0)])
def test_a_finder_is_less_sure_than_its_threshold_of_one_lesion_in_a_hundred(framed, boxed, threshold):
    known = framed[np.zeros(300, int)]
    boxes = np.where(np.arange(300)[:, None] < boxed, [1.0, 2, 3, 4], np.nan)
    known.table[["x", "y", "width", "height"]] = boxes
    order = np.random.default_rng(0).permutation(boxed)
    sure = np.concatenate([0.1 + order / 1000, np.full(300 - boxed, 0.01)]).astype(np.float32)
    assert looks.choose_found_threshold(known, sure) == pytest.approx(threshold, abs=1e-6)
    assert looks.choose_found_threshold(known, np.ones(300, np.float32)) == 0  # nothing was sought
