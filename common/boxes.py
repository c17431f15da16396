"""Boxes and windows as arrays [n, 4]: x, y, width and height, in pixels of the frames or in shares of their sides."""

import numpy as np


def in_shares(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes from pixels to shares, float32 [n, 4]. sizes: [n, 2], height and width of the frames."""
    return (boxes / sizes[:, [1, 0, 1, 0]]).astype(np.float32)


def overlap(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each found and true box, [n]; nan where a box is nan."""
    start = np.maximum(found[:, :2], true[:, :2])
    end = np.minimum(found[:, :2] + found[:, 2:], true[:, :2] + true[:, 2:])
    inner = (end - start).clip(0).prod(1)
    return inner / (found[:, 2:].prod(1) + true[:, 2:].prod(1) - inner)


def holds_centre(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return whether the centre of each found box or window lies in the true box, bool [n]; False where nan."""
    offset = (found[:, :2] + found[:, 2:] / 2 - true[:, :2]) / true[:, 2:]
    return ((offset >= 0) & (offset <= 1)).all(1)
