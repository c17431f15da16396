"""Where a model looks: the boxes of the finder, the windows around boxes, and the predictions from the windows.

Models of the views square and frame see the pixels. Models of the view lesion find the lesion first, unless a box is
given.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from common import lesion, model
from common.answer import whole_windows
from common.boxes import in_shares
from common.images import Images
from common.model import Predictor
from common.preparation import cut, frames
from common.progress import shown

MISSED = 0.01  # share of the known lesions for which a finder is less sure than its threshold


class Look(NamedTuple):
    """Where a model looks in images.

    images: the images, with windows in the view lesion; boxes: float32 [n, 4], the boxes inside the windows, in pixels
    of the frames, nan in other views; windows: float32 [n, 4], what the model sees first, in shares of the picture in
    `Images.pixels`; found: float32 [n], how sure the finder is of a lesion, 0 to 1; 1 for a given box or no finder.
    """

    images: Images
    boxes: np.ndarray
    windows: np.ndarray
    found: np.ndarray

    @property
    def extents(self) -> np.ndarray:
        """Widths and heights of the boxes, float32 [n, 2], as `lesion.extents_of` gives them."""
        return lesion.extents_of(torch.from_numpy(self.boxes), lesion.scale_of(self.images.sizes)).numpy()

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """Inputs of a `Predictor`: the pixels or, in the view lesion, windows with frames, and extents."""
        if self.images.windows is None:
            return (self.images.pixels,)
        return np.stack([self.images.windows, self.images.pixels], 1), self.extents


def look(predictor: Predictor, images: Images, given: bool = False) -> Look:
    """Find the lesions in images and place windows around them. Without a finder, the window is the whole picture.

    Args: given: use the boxes that images have, and find the other boxes. Raises: UserError, as `place_windows`.
    """
    if predictor.finder is None:
        none = np.full((len(images), 4), np.nan, np.float32)
        return Look(images, none, whole_windows(len(images)), np.ones(len(images), np.float32))
    boxes, found = find_lesions(predictor.finder, images)
    if given:
        boxes[images.boxed], found[images.boxed] = images.boxes[images.boxed], 1
    windows = lesion_windows(boxes)
    return Look(place_windows(images, windows), boxes, in_shares(windows, images.sizes), found)


def find_lesions(finder: Predictor, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Find the lesion in each frame. Returns: boxes, float32 [n, 4] in pixels; how sure, float32 [n], 0 to 1."""
    heat = model.explain(finder, images.pixels).heat
    assert heat is not None  # a finder has a heat map
    return lesion.in_pixels(lesion.box_of(heat), lesion.scale_of(images.sizes)).numpy(), heat.amax((1, 2)).numpy()


def choose_found_threshold(images: Images, found: np.ndarray) -> float:
    """Return how sure a finder must be to have found a lesion: about 1 % of the known lesions are below the threshold.

    Args: found: float [n], how sure a finder is. The finder was not trained on these images.
    Returns: 0 to 1; 0 if no box is known, or without a finder.
    """
    of_lesions = found[images.boxed]
    return float(np.quantile(of_lesions, MISSED, method="lower")) if len(of_lesions) and found.min() < 1 else 0.0


def lesion_windows(boxes: np.ndarray) -> np.ndarray:
    """Return the windows that the model sees around boxes, float [n, 4] in pixels. boxes: float [n, 4] in pixels."""
    return lesion.lesion_windows(torch.from_numpy(boxes)).numpy()


def place_windows(images: Images, windows: np.ndarray) -> Images:
    """Return the images with windows, cut out of the frames as stored. windows: [n, 4] in pixels of the frames.

    Raises: UserError if an image file cannot be read again.
    """
    seen, pairs = np.empty_like(images.pixels), zip(frames(images), windows)
    for i, (frame, window) in enumerate(shown(pairs, "windows", len(images))):
        seen[i] = cut(frame, window.tolist(), images.pixels.shape[-1])
    return replace(images, windows=seen)


def find_and_predict(predictor: Predictor, images: Images, given: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of images, float64 [n], not calibrated, and how sure the finder is of a lesion, float32 [n].

    Args: given: as for `look`. Raises: UserError, as `look`.
    """
    looked = look(predictor, images, given)
    return model.predict(predictor, *looked.inputs), looked.found
