"""Find the lesion in a frame: a coarse heat map, the box around its hottest part, and how such boxes are trained.

A box is x, y, width, height in pixels of the frame, or, where it says so, in shares of the frame's width and height;
nan where there is none. Why it is done so: results/lesion.md.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common.window import lesion_window

FACTOR = 2.5  # side of the window around a lesion, in longer sides of its box
HOT = 0.4  # share of the hottest cell's heat from which a cell belongs to the hottest part
DEVIATIONS = 2.0  # of an ellipse: from its centre to its edge


def ellipses(boxes: torch.Tensor, side: int) -> torch.Tensor:
    """Heat maps to train on: 1 inside the ellipse of each box, 0 elsewhere, and everywhere without a box.

    Args: boxes: [n, 4], in shares. Returns: float32 [n, side, side].
    """
    position = (torch.arange(side, device=boxes.device) + 0.5) / side
    start, size = boxes[:, :2], boxes[:, 2:]
    across = (position - (start + size / 2)[..., None]) / (size / 2)[..., None]  # [n, 2, side]
    return (across[:, 0, None, :].square() + across[:, 1, :, None].square() <= 1).float()


def heat_loss(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, and Dice's loss with sums over the map of each image (Milletari et al., 3DV 2016).

    Args: logits: [n, side, side]; heat: in [0, 1], the same or finer, averaged to the cells of the map; nan in the map
    of an image of which it is unknown whether and where there is a lesion, which then does not count.
    Returns: a number; 0 where no image counts.
    """
    heat = F.adaptive_avg_pool2d(heat, (logits.shape[1], logits.shape[2]))
    known = ~heat.isnan().flatten(1).any(1)
    logits, heat = logits[known], heat[known]
    if not len(heat):
        return logits.sum()  # of none: 0, with a gradient
    p = logits.sigmoid()
    overlap, total = (p * heat).sum((1, 2)), (p + heat).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, heat) + dice.mean()


def hottest_part(heat: torch.Tensor, share: float = HOT) -> torch.Tensor:
    """The heat of the connected cells around the hottest one that have at least a share of its heat; 0 elsewhere. Cells
    count that are reached in as many steps as the map has rows. heat: [n, rows, columns]."""
    hottest = heat.amax((1, 2), keepdim=True)
    hot, part = (heat >= share * hottest).float(), (heat >= hottest).float()
    for _ in range(heat.shape[1]):  # the part grows by a cell in all directions, where it is hot
        part = F.max_pool2d(part[:, None], 3, 1, 1)[:, 0] * hot
    return heat * part


def box_of(heat: torch.Tensor) -> torch.Tensor:
    """The box of a lesion, float32 [n, 4] in shares: `box_around` the hottest part. heat: [n, s, s], above 0."""
    return box_around(hottest_part(heat))


def box_around(heat: torch.Tensor) -> torch.Tensor:
    """The centre of all heat, and DEVIATIONS standard deviations to either side. Returns: float32 [n, 4], in shares.
    heat: [n, s, s]."""
    side = heat.shape[1]
    position = (torch.arange(side, device=heat.device) + 0.5) / side
    share = heat / heat.sum((1, 2), keepdim=True).clamp(min=1e-9)
    along = torch.stack([share.sum(1), share.sum(2)], 1)  # [n, 2, s]: of columns, of rows
    mean = (along * position).sum(2)
    of_a_cell = 1 / (12 * side**2)  # the variance inside a cell, without which the box of a single cell has no size
    spread = ((along * (position - mean[..., None]).square()).sum(2) + of_a_cell).sqrt()
    return torch.cat([mean - DEVIATIONS * spread, 2 * DEVIATIONS * spread], 1)


def in_pixels(shares: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Boxes in shares, [n, 4], as boxes in whole pixels, at least one wide and high. scale: [n, 4], width, height,
    width and height of each frame."""
    start, size = (shares * scale).round().split(2, 1)
    return torch.cat([start, size.clamp(min=1)], 1)


def scale_of(sizes: np.ndarray) -> torch.Tensor:
    """Width, height, width and height of frames, float32 [n, 4]. sizes: [n, 2], height and width."""
    return torch.from_numpy(sizes[:, [1, 0, 1, 0]]).float()


def window_of(boxes: torch.Tensor) -> torch.Tensor:
    """The square that the network sees of a lesion. boxes: [n, 4], in pixels. Returns: [n, 4]."""
    return lesion_window(boxes, FACTOR)
