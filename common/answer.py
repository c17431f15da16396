"""Answers of a model to images, from a run or from an .onnx file."""

from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """Answers of a model for n images.

    probabilities: [n], calibrated; windows: [n, 4], what the model sees first: x, y, width and height in shares of the
    picture in `Images.pixels`; found: [n], how sure the finder is of a lesion, 1 if the model does not search for the
    lesion; typicality: [n], None if the model gives none; typicality_threshold: an image of lower typicality is unlike
    the training images.
    """

    probabilities: np.ndarray
    windows: np.ndarray
    found: np.ndarray
    typicality: np.ndarray | None = None
    typicality_threshold: float | np.float32 = 0.0

    @property
    def unlike(self) -> np.ndarray:
        """Whether each image is unlike the training images, bool [n]; False without typicality."""
        if self.typicality is None:
            return np.zeros(len(self.found), bool)
        return self.typicality < self.typicality_threshold


def whole_windows(n: int) -> np.ndarray:
    """Return n windows that show whole pictures, float32 [n, 4] in shares."""
    return np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
