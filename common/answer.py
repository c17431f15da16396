"""What a model says of images, be it a run or an .onnx file."""

from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """probabilities: calibrated, [n]; windows: what the model looks at first, [n, 4], x, y, width and height in shares
    of the picture that `Images.pixels` shows; found: how sure its finder is of a lesion, [n], 1 where the model does
    not look for it; typicality: [n], None where the model does not tell."""

    probabilities: np.ndarray
    windows: np.ndarray
    found: np.ndarray
    typicality: np.ndarray | None = None


def whole(n: int) -> np.ndarray:
    """The windows of a model that sees all of n pictures, float32 [n, 4]."""
    return np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
