"""Boxes and windows as arrays [n, 4]: x, y, width and height, in pixels of the frames or in shares of their sides."""

import numpy as np


def in_shares(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes from pixels to shares, float32 [n, 4]. sizes: [n, 2], height and width of the frames."""
    return (boxes / sizes[:, [1, 0, 1, 0]]).astype(np.float32)


def misplaced(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return whether each box cannot be in pixels of its frame, bool [n]; False where nan.

    Such a box is thinner than a pixel, or reaches out of the frame by more than 2 % of the side. sizes: as for
    `in_shares`.
    """
    start, size = in_shares(boxes, sizes).astype(float).reshape(-1, 2, 2).transpose(1, 0, 2)
    return ((boxes[:, 2:] < 1) | (start < -0.02) | (start + size > 1.02)).any(1)


def seem_per_cent(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Return whether boxes seem to be in per cent of their frames: ten or more, all in the first 100x100 pixels.

    In frames of 200 pixels or less, such boxes may be in pixels. Args: boxes: no nan; sizes: as for `in_shares`.
    """
    return bool(len(boxes) >= 10 and (boxes[:, :2] + boxes[:, 2:]).max() <= 100 and sizes.min() > 200)


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
