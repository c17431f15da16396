"""Where a model looks: the finder's boxes, the windows around them, and what the model then says.

Models of the views square and frame look at the pixels. Those of the view lesion find it first, unless a box is given.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from common import lesion, model
from common.answer import whole
from common.boxes import in_shares
from common.images import Images
from common.model import Predictor
from common.preparation import cut, frames
from common.progress import shown

MISSED = 0.01  # share of lesions of which a finder is less sure than its threshold


class Look(NamedTuple):
    """Where a model looks. images: with their windows, in the view lesion; boxes: float32 [n, 4] in pixels, around
    which these are placed, nan in other views; windows: float32 [n, 4], what the model sees first, in shares of the
    picture that `Images.pixels` shows; found: how sure the finder is of a lesion, float32 [n], 1 where it was not
    asked."""

    images: Images
    boxes: np.ndarray
    windows: np.ndarray
    found: np.ndarray


def look(predictor: Predictor, images: Images, given: bool = False) -> Look:
    """Find the lesions and place windows around them. given: take the boxes that the images have, and find those of the
    others. Raises: UserError, as `place_windows`."""
    if predictor.finder is None:
        none = np.full((len(images), 4), np.nan, np.float32)
        return Look(images, none, whole(len(images)), np.ones(len(images), np.float32))
    boxes, found = find_lesions(predictor.finder, images)
    if given:
        boxes[images.boxed], found[images.boxed] = images.boxes[images.boxed], 1
    windows = windows_around(boxes)
    return Look(place_windows(images, windows), boxes, in_shares(windows, images.sizes), found)


def find_lesions(finder: Predictor, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, float32 [n, 4], in pixels of the frames, and how sure the finder is of each, float32 [n]."""
    heat = model.explain(finder, images.pixels).heat
    assert heat is not None  # a finder has one
    return lesion.in_pixels(lesion.box_of(heat), lesion.scale_of(images.sizes)).numpy(), heat.amax((1, 2)).numpy()


def choose_found_threshold(images: Images, found: np.ndarray) -> float:
    """How sure a finder must be to find something: it is less sure of about 1 % of lesions. 0 where no box is known.
    found: [n], of a finder that was not trained on these images."""
    of_lesions = found[images.boxed]
    return float(np.quantile(of_lesions, MISSED, method="lower")) if len(of_lesions) and found.min() < 1 else 0.0


def windows_around(boxes: np.ndarray) -> np.ndarray:
    """What the model sees around boxes, [n, 4] in pixels. Returns: float32 [n, 4], in pixels."""
    return lesion.window_of(torch.from_numpy(boxes)).numpy()


def place_windows(images: Images, windows: np.ndarray) -> Images:
    """The images with windows, [n, 4] in pixels, cut out of the frames as stored. Raises: UserError for a file that
    cannot be read again."""
    seen, pairs = np.empty_like(images.pixels), zip(frames(images), windows)
    for i, (frame, window) in enumerate(shown(pairs, "windows", len(images))):
        seen[i] = cut(frame, window.tolist(), images.pixels.shape[-1])
    return replace(images, windows=seen)


def predict(predictor: Predictor, images: Images, given: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Logits of images, float64 [n], not calibrated, and how sure the finder is of a lesion, float32 [n]. given: as
    `look`. Raises: UserError, as `look`."""
    looked = look(predictor, images, given)
    return model.predict(predictor, looked.images.seen), looked.found
