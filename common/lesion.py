"""Find the lesion in a frame: a coarse heat map, the box around its hottest part, and the loss for training.

A box is x, y, width, height in pixels of the frame or, where a docstring says so, in shares of the width and height of
the frame. A box is nan if there is none. results/lesion.md gives the reasons.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common.calibration import logistic_regression
from common.window import square_around

WINDOW_FACTOR = 2.5  # side of the window around a lesion, as a multiple of the longer side of the box
HOT_SHARE = 0.4  # share of the heat of the hottest cell; the hottest part has cells with at least this heat
DEVIATIONS = 2.0  # standard deviations from the centre to the edge of an ellipse with even heat
BOX_DEVIATIONS = np.array([5.0, 5.0, 100.0])  # of the prior of the weights of width, height and 1, with mean 0
LEAST_EXTENT = 0.001  # a box thinner than this share of the frame counts as this thin


def ellipses(boxes: torch.Tensor, side: int) -> torch.Tensor:
    """Return heat maps to train on: 1 inside the ellipse of each box, 0 outside. Without a box, all cells are 0.

    Args: boxes: [n, 4], in shares. Returns: float32 [n, side, side].
    """
    position = (torch.arange(side, device=boxes.device) + 0.5) / side
    start, size = boxes[:, :2], boxes[:, 2:]
    across = (position - (start + size / 2)[..., None]) / (size / 2)[..., None]  # [n, 2, side]
    return (across[:, 0, None, :].square() + across[:, 1, :, None].square() <= 1).float()


def heat_loss(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Return the loss of heat maps: binary cross-entropy plus Dice loss (Milletari et al., 3DV 2016).

    The sums of the Dice loss are over the map of each image. Unlike in the paper, the denominator has no squares.

    Args: logits: [n, side, side]; heat: [n, h, w] in [0, 1], the same size or finer, averaged to the cells of the map.
    A map with nan does not count: it is unknown whether and where the image shows a lesion.
    Returns: a number; 0 if no map counts.
    """
    heat = F.adaptive_avg_pool2d(heat, (logits.shape[1], logits.shape[2]))
    known = ~heat.isnan().flatten(1).any(1)
    logits, heat = logits[known], heat[known]
    if not len(heat):
        return logits.sum()  # the sum over no map: 0, with a gradient
    p = logits.sigmoid()
    overlap, total = (p * heat).sum((1, 2)), (p + heat).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, heat) + dice.mean()


def hottest_part(heat: torch.Tensor) -> torch.Tensor:
    """Return the heat of the hottest part of each map, 0 outside the part. heat: [n, rows, columns].

    The part has the connected cells around the hottest cell with at least HOT_SHARE of its heat. A cell counts if
    the cell is reached in at most as many steps as the map has rows.
    """
    hottest = heat.amax((1, 2), keepdim=True)
    hot, part = (heat >= HOT_SHARE * hottest).float(), (heat >= hottest).float()
    for _ in range(heat.shape[1]):  # the part grows by one cell in all directions, but only into hot cells
        part = F.max_pool2d(part[:, None], 3, 1, 1)[:, 0] * hot
    return heat * part


def box_of(heat: torch.Tensor) -> torch.Tensor:
    """Return the box around the hottest part of each heat map, float32 [n, 4] in shares. heat: [n, s, s], above 0.

    The box reaches DEVIATIONS standard deviations to each side of the centre of the heat of this part.
    """
    side, heat = heat.shape[1], hottest_part(heat)
    position = (torch.arange(side, device=heat.device) + 0.5) / side
    share = heat / heat.sum((1, 2), keepdim=True).clamp(min=1e-9)
    along = torch.stack([share.sum(1), share.sum(2)], 1)  # [n, 2, s]: sums of columns, of rows
    mean = (along * position).sum(2)
    of_a_cell = 1 / (12 * side**2)  # the variance inside a cell gives the box of a single cell a size
    spread = ((along * (position - mean[..., None]).square()).sum(2) + of_a_cell).sqrt()
    return torch.cat([mean - DEVIATIONS * spread, 2 * DEVIATIONS * spread], 1)


def in_pixels(shares: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Convert boxes from shares to whole pixels, at least one pixel wide and high. shares: float [n, 4].

    Args: scale: [n, 4], width, height, width and height of each frame, as from `scale_of`.
    """
    start, size = (shares * scale).round().split(2, 1)
    return torch.cat([start, size.clamp(min=1)], 1)


def scale_of(sizes: np.ndarray) -> torch.Tensor:
    """Return width, height, width and height of frames, float32 [n, 4]. sizes: int [n, 2], height and width."""
    return torch.from_numpy(sizes[:, [1, 0, 1, 0]]).float()


def extents_of(boxes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the width and height of boxes: natural logarithms of shares of the longer side of the frame, [n, 2].

    Args: boxes: [n, 4] in pixels; scale: as for `in_pixels`.
    """
    return (boxes[:, 2:] / scale.amax(1, keepdim=True)).clamp(min=LEAST_EXTENT).log()


def fit_box(extents: np.ndarray, labels: np.ndarray) -> torch.nn.Linear:
    """Return a layer from the extents of a box to the logit of malignant, fitted by logistic regression.

    If all labels are equal, the layer gives 0. Args: extents: [n, 2], of true boxes; labels: [n], 1 for malignant.
    """
    layer, found = torch.nn.Linear(2, 1), np.zeros(3)
    if len(set(labels)) == 2:
        found = logistic_regression(np.insert(extents, 2, 1, 1), labels, found, BOX_DEVIATIONS)
    layer.weight.data[0], layer.bias.data[0] = torch.from_numpy(found[:2]), found[2]
    return layer


def lesion_windows(boxes: torch.Tensor) -> torch.Tensor:
    """Return the square window that the network sees around each lesion, [n, 4] in pixels. boxes: [n, 4] in pixels."""
    return square_around(boxes, WINDOW_FACTOR)
