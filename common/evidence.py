"""Place an evidence map in its image, and draw the map over the image. Needs numpy and Pillow."""

import numpy as np
from PIL import Image, ImageDraw

from common import imagefile

MALIGNANT, BENIGN = "#D55E00", "#0072B2"  # colours of Okabe and Ito, which colour-blind readers tell apart
FULL, OPACITY = 6.0, 0.65  # log-odds and opacity of the deepest colour, in every picture


def place(evidence: np.ndarray, height: int, width: int, window=None) -> np.ndarray:
    """Return the evidence at each pixel of an image, float32 [height, width].

    The figures and the web page place maps in the same way. The cells of the map tile the window. In a window of h × w
    pixels, the value of a cell belongs to the centre of the cell: ((row + 0.5) * h / rows, (column + 0.5) * w /
    columns) from the upper left corner. Centres of pixels get values by bilinear interpolation between centres of
    cells. Beyond the outermost centres, pixels get the outermost value. Outside the window, pixels get 0.

    Args: evidence: [rows, columns]; window: x, y, width and height in pixels, rounded to whole pixels; None for the
    middle square (`imagefile.centre`).
    """
    rows, columns = imagefile.centre(height, width)
    if window is not None:
        left, top, right, bottom = np.rint([*window[:2], *np.add(window[:2], window[2:])]).astype(int)
        rows, columns = slice(top, bottom), slice(left, right)
    values = Image.fromarray(evidence.astype(np.float32))
    size = columns.stop - columns.start, rows.stop - rows.start
    placed = np.asarray(values.resize(np.maximum(size, 1).tolist(), Image.Resampling.BILINEAR))
    whole = np.zeros((height, width), np.float32)
    seen = tuple(slice(max(part.start, 0), max(part.stop, 0)) for part in (rows, columns))
    room = whole[seen]
    start = seen[0].start - rows.start, seen[1].start - columns.start
    room[:] = placed[start[0] : start[0] + room.shape[0], start[1] : start[1] + room.shape[1]]
    return whole


def overlay(image: np.ndarray, evidence: np.ndarray, window=None) -> Image.Image:
    """Draw evidence over an image: vermillion for malignant, blue against malignant, more opaque for more evidence.

    All pictures have the same scale. A white line marks a given window that is not the whole frame.
    Args: image: uint8 [h, w]; evidence, window: as for `place`.
    """
    height, width = image.shape
    placed, picture = place(evidence, height, width, window), Image.fromarray(image).convert("RGB")
    for colour, values in ((MALIGNANT, placed), (BENIGN, -placed)):
        opacity = 255 * OPACITY * np.clip(values / FULL, 0, 1)
        picture.paste(colour, mask=Image.fromarray(opacity.round().astype(np.uint8)))
    if window is not None and np.rint(window).tolist() != [0, 0, width, height]:
        x, y, side_x, side_y = window
        ImageDraw.Draw(picture).rectangle([x, y, x + side_x - 1, y + side_y - 1], outline="white")
    return picture
