"""Answers of a model to images, from a run or from an .onnx file."""

from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """Answers of a model for n images.

    probabilities: [n], calibrated; windows: [n, 4], what the model sees first: x, y, width and height in shares of the
    picture in `Images.pixels`; found: [n], how sure the finder is of a lesion, 1 if the model does not search for the
    lesion; typicality: [n], None if the model gives none.
    """

    probabilities: np.ndarray
    windows: np.ndarray
    found: np.ndarray
    typicality: np.ndarray | None = None


def whole_windows(n: int) -> np.ndarray:
    """Return n windows that show whole pictures, float32 [n, 4] in shares."""
    return np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
