"""An evidence map in the image that it is of, and drawn over it. Needs numpy and Pillow."""

import numpy as np
from PIL import Image, ImageDraw

from common import imagefile

MALIGNANT, BENIGN = "#D55E00", "#0072B2"  # Okabe and Ito's vermillion and blue, which colour-blind readers tell apart
FULL, OPACITY = 6.0, 0.65  # log-odds from which colour is deepest, in every picture, and how opaque it is then


def place(evidence: np.ndarray, height: int, width: int, window=None) -> np.ndarray:
    """An evidence map in its image, pixel by pixel: what the model, the figures and the web page mean by a position.

    The rows × columns cells of the map tile the window. A cell's value is that at its centre, ((row + 0.5) * height /
    rows, (column + 0.5) * width / columns) from the window's upper left corner; a pixel, taken at its centre too, has
    the value that is interpolated bilinearly between the centres of cells, and beyond the outermost centres that of
    the outermost. Outside of the window it is 0.

    Args: evidence: [rows, columns]; window: x, y, width and height in pixels, rounded to whole ones; None for the
    image's centre crop (`imagefile.centre`). Returns: float32 [height, width].
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
    """An image with what speaks for malignant in vermillion and what speaks against it in blue, the more the less
    transparent, to the same scale in every picture, and a line around the window where one is given. Args: image: uint8
    [h, w]; evidence, window: as `place`."""
    height, width = image.shape
    placed, picture = place(evidence, height, width, window), Image.fromarray(image).convert("RGB")
    for colour, values in ((MALIGNANT, placed), (BENIGN, -placed)):
        opacity = 255 * OPACITY * np.clip(values / FULL, 0, 1)
        picture.paste(colour, mask=Image.fromarray(opacity.round().astype(np.uint8)))
    if window is not None and np.rint(window).tolist() != [0, 0, width, height]:
        x, y, side_x, side_y = window
        ImageDraw.Draw(picture).rectangle([x, y, x + side_x - 1, y + side_y - 1], outline="white")
    return picture
