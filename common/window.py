"""Cut a window out of an image and resize it, as Pillow does: in training, in prediction and in the exported file.

A box is x, y, width, height in pixels of the image; x and y are its left and upper edge. Every view is a window:

window(images, square_box(h, w), side, clip=True)     the middle square, as MedMNIST prepared its images
window(images, frame_box(h, w), side)                 the whole frame, squashed to a square
window(images, lesion_window(boxes, 2.5), side)       a square around each lesion
"""

import torch

# Weights are multiples of 1 / FRACTION. Their products with grey levels, and the sums of these, are then exact in
# float32: every runtime finds the same grey levels.
FRACTION = 2**16


def window(images: torch.Tensor, boxes: torch.Tensor, side: int, clip: bool = False) -> torch.Tensor:
    """Resize the part of each image inside its box, as Pillow's `resize((side, side), BILINEAR, box=box)` does.

    The columns are resized first, then the rows, and each pass rounds to whole grey levels, as Pillow rounds. The
    window is black where it leaves the frame.

    Args:
        images: [n, h, w], grey levels from 0 to 255, of any dtype.
        boxes: [n, 4] or [1, 4], float; parts of a box may lie outside the frame.
        side: of the windows, in pixels.
        clip: crop before resizing: pixels outside the box do not count, where Pillow's `box` blends in the nearest.
    Returns: float32 [n, side, side], whole grey levels from 0 to 255.
    """
    x, y, width, height = boxes.float().unbind(1)
    columns = kernels(x, width, images.shape[2], side, clip)
    rows = kernels(y, height, images.shape[1], side, clip)
    narrow = to_grey_levels(images.float() @ columns.transpose(1, 2))
    return to_grey_levels(rows @ narrow)


def kernels(start: torch.Tensor, length: torch.Tensor, size: int, side: int, clip: bool = False) -> torch.Tensor:
    """The weights of an antialiased linear resize of one axis: a triangle around the centre of each output pixel, as
    wide as Pillow makes it (`precompute_coeffs` in its Resample.c).

    Args: start, length: of the boxes along this axis, [n], in pixels; size: of the image; side: of the window.
    Returns: [n, side, size]. Each row sums to 1, or to 0 where the centre of an output pixel lies outside the frame.
    """
    position = torch.arange(size, device=start.device) + 0.5
    scale = (length / side)[:, None]
    centre = start[:, None] + (torch.arange(side, device=start.device) + 0.5) * scale
    distance = (position - centre[:, :, None]).abs()
    weights = (1 - distance / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    if clip:
        weights = weights * ((position > start[:, None]) & (position < (start + length)[:, None]))[:, None]
    weights = weights * ((centre >= 0) & (centre < size))[:, :, None]
    weights = (weights * 2**14).round()  # whole numbers: the sum of a thousand is exact too
    return (weights / weights.sum(2, keepdim=True).clamp(min=1) * FRACTION).round() / FRACTION


def to_grey_levels(values: torch.Tensor) -> torch.Tensor:
    """Round to whole numbers, halves upwards."""
    return (values + 0.5).floor()


def frame_box(height: int, width: int) -> torch.Tensor:
    """The box of the whole frame, float32 [1, 4]."""
    return torch.cat([torch.zeros(2), torch.full((1,), width), torch.full((1,), height)])[None]


def square_box(height: int, width: int) -> torch.Tensor:
    """The box of the middle square, float32 [1, 4]. Of an odd number of pixels left over, the end has one more."""
    size = frame_box(height, width)[:, 2:]
    side = size.amin(1, keepdim=True).expand(1, 2)
    return torch.cat([((size - side) / 2).floor(), side], 1)


def lesion_window(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    """The square around each box: the same centre, and `factor` times its longer side. boxes: [n, 4]."""
    start, size = boxes[:, :2], boxes[:, 2:]
    side = (factor * size.amax(1, keepdim=True)).expand(-1, 2)
    return torch.cat([start + (size - side) / 2, side], 1)
