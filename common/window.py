"""Cut a window out of an image and resize the window, as Pillow does.

Training, prediction and the exported file use the same code. A box is x, y, width, height in pixels of the image; x and
y are the left and upper edge of the box. Every view is a window:

window(images, square_box(h, w), side, clip=True)     the middle square, as MedMNIST prepared its images
window(images, frame_box(h, w), side)                 the whole frame, squashed to a square
window(images, square_around(boxes, 2.5), side)       a square around each lesion
"""

import torch

# Weights are multiples of 1 / FRACTION, so that weighted sums of grey levels are exact in float32, in every runtime.
FRACTION = 2**16


def window(images: torch.Tensor, boxes: torch.Tensor, side: int, clip: bool = False) -> torch.Tensor:
    """Resize the part of each image inside a box, as Pillow's `resize((side, side), BILINEAR, box=box)` does.

    The columns are resized first, then the rows. Each pass rounds to whole grey levels, as Pillow does. The window is
    black outside the frame.

    Args:
        images: [n, h, w], grey levels from 0 to 255, any dtype.
        boxes: [n, 4] or [1, 4], float; parts of a box may lie outside the frame.
        side: side of the windows in pixels.
        clip: crop before resizing, so that no pixel outside the box counts. Pillow's `box` blends in near pixels.
    Returns: float32 [n, side, side], whole grey levels from 0 to 255.
    """
    x, y, width, height = boxes.float().unbind(1)
    columns = kernels(x, width, images.shape[2], side, clip)
    rows = kernels(y, height, images.shape[1], side, clip)
    narrow = to_grey_levels(images.float() @ columns.transpose(1, 2))
    return to_grey_levels(rows @ narrow)


def kernels(start: torch.Tensor, length: torch.Tensor, size: int, side: int, clip: bool = False) -> torch.Tensor:
    """Return the weights that resize one axis of images: an antialiased linear filter.

    The filter is a triangle around the centre of each output pixel, as wide as in Pillow (`precompute_coeffs` in
    Resample.c).

    Args: start, length: [n], start and length of the boxes along the axis, in pixels; size: pixels of the image along
    the axis; side: side of the window in pixels; clip: as for `window`.
    Returns: float32 [n, side, size]. A row sums to 1 but for rounding; to 0 if the output pixel is outside the frame.
    """
    position = torch.arange(size, device=start.device) + 0.5
    scale = (length / side)[:, None]
    centre = start[:, None] + (torch.arange(side, device=start.device) + 0.5) * scale
    distance = (position - centre[:, :, None]).abs()
    weights = (1 - distance / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    if clip:
        weights = weights * ((position > start[:, None]) & (position < (start + length)[:, None]))[:, None]
    weights = weights * ((centre >= 0) & (centre < size))[:, :, None]
    weights = (weights * 2**14).round()  # the sum of 1000 of these whole numbers is exact
    return (weights / weights.sum(2, keepdim=True).clamp(min=1) * FRACTION).round() / FRACTION


def to_grey_levels(values: torch.Tensor) -> torch.Tensor:
    """Round to whole numbers; halves round up."""
    return (values + 0.5).floor()


def frame_box(height: int, width: int) -> torch.Tensor:
    """Return the box of the whole frame, float32 [1, 4]."""
    return torch.cat([torch.zeros(2), torch.full((1,), width), torch.full((1,), height)])[None]


def square_box(height: int, width: int) -> torch.Tensor:
    """Return the box of the middle square, float32 [1, 4]. If an odd number is cut, the end loses one more pixel."""
    size = frame_box(height, width)[:, 2:]
    side = size.amin(1, keepdim=True).expand(1, 2)
    return torch.cat([((size - side) / 2).floor(), side], 1)


def square_around(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    """Return the square around each box, [n, 4]: same centre, side `factor` times the longer side. boxes: [n, 4]."""
    start, size = boxes[:, :2], boxes[:, 2:]
    side = (factor * size.amax(1, keepdim=True)).expand(-1, 2)
    return torch.cat([start + (size - side) / 2, side], 1)
