"""An evidence map in the image that it is of, and drawn over it. Needs numpy and Pillow."""

import numpy as np
from PIL import Image

from common import imagefile

MALIGNANT, BENIGN = "#D55E00", "#0072B2"  # Okabe and Ito's vermillion and blue, which colour-blind readers tell apart
FULL, OPACITY = 6.0, 0.65  # log-odds from which colour is deepest, in every picture, and how opaque it is then


def place(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """An evidence map in its image, pixel by pixel: what the model, the figures and the web page mean by a position.

    The rows × columns cells of the map tile the image's centre crop (`imagefile.centre`). A cell's value is that at its
    centre, ((row + 0.5) * side / rows, (column + 0.5) * side / columns) from the crop's upper left corner; a pixel,
    taken at its centre too, has the value that is interpolated bilinearly between the centres of cells, and beyond the
    outermost centres that of the outermost. Outside of the crop, which the model does not see, it is 0.

    Args: evidence: [rows, columns]. Returns: float32 [height, width].
    """
    placed = np.zeros((height, width), np.float32)
    square = placed[imagefile.centre(height, width)]
    values = Image.fromarray(evidence.astype(np.float32))
    square[:] = np.asarray(values.resize(square.shape, Image.Resampling.BILINEAR))
    return placed


def overlay(image: np.ndarray, evidence: np.ndarray) -> Image.Image:
    """An image with what speaks for malignant in vermillion and what speaks against it in blue, the more the less
    transparent, to the same scale in every picture. Args: image: uint8 [h, w]; evidence: [rows, columns]."""
    placed, picture = place(evidence, *image.shape), Image.fromarray(image).convert("RGB")
    for colour, values in ((MALIGNANT, placed), (BENIGN, -placed)):
        opacity = 255 * OPACITY * np.clip(values / FULL, 0, 1)
        picture.paste(colour, mask=Image.fromarray(opacity.round().astype(np.uint8)))
    return picture
