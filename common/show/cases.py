"""Figures of single images: cases that a model gets right and wrong with their evidence, and windows on frames."""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from common import evidence
from common.evidence import BENIGN, FULL, MALIGNANT, OPACITY
from common.images import Images
from common.show import figures

SHOWN = 3  # images of each outcome
OUTCOMES = {(1, 1): "true positive", (0, 1): "false positive", (1, 0): "false negative", (0, 0): "true negative"}
WORST = USUAL = 8  # frames of each kind in `windows`
SEEN = 224  # side of a frame in `windows`, in pixels
WINDOWS = (
    "White: the window that the model found. Vermillion: the window around the given box. First: the frames in which "
    "both windows overlap least. Then: some other frames, from least to most overlap. IoU: intersection over union."
)
NOTE = (
    "The most extreme images of each outcome at the operating point, {:.4f}. P is P(malignant). The unit of evidence "
    "is log-odds{}. The scale is the same for every image."
)
OF_ALL = ". The mean of an image's map is its logit"
OF_WINDOW = ". The map shows the window. The logit is the mean of this map and the frame's map, which is not shown"


def most_extreme(labels, probabilities, threshold: float, n: int) -> list[tuple[str, int]]:
    """Return (outcome, index) of the n images of each outcome that are farthest from the threshold.

    Args: labels: [m], 1 for malignant; probabilities: [m], P(malignant); threshold: an image is flagged from here up.
    """
    flagged = np.asarray(probabilities) >= threshold
    order = np.argsort(np.where(flagged, -1, 1) * probabilities, kind="stable")
    of = {case: [int(i) for i in order if (labels[i], flagged[i]) == case][:n] for case in OUTCOMES}
    return [(outcome, i) for case, outcome in OUTCOMES.items() for i in of[case]]


def sheet(model, images: Images, labels, probabilities, title: str) -> Figure:
    """Draw images of each outcome at the operating point, each next to its evidence, with a colour scale.

    Args: model: a run or an .onnx file; labels: [n], 1 for malignant; probabilities: [n], P(malignant).
    """
    threshold = model.calibration.threshold
    shown = most_extreme(labels, probabilities, threshold, SHOWN)
    some = images[[i for _, i in shown]]
    stored, side = some.pixels, some.pixels.shape[-1]
    maps, windows = model.evidence(some)
    drawn = [np.asarray(evidence.overlay(*one)) for one in zip(stored, maps, side * windows)]
    pairs = np.stack([np.repeat(stored[..., None], 3, axis=-1), np.stack(drawn)], 1)
    captions = [f"image {i}: P = {probabilities[i]:.3f}\n{outcome}" for outcome, i in shown]
    frames = [figures.MODEL if outcome.startswith("true") else figures.CHOSEN for outcome, _ in shown]
    note = NOTE.format(threshold, OF_WINDOW if model.view == "lesion" else OF_ALL)
    figure = figures.image_sheet(pairs, captions, SHOWN, title, frames=frames, note=note)
    # The scale has the colours of `evidence.overlay` over a mid grey.
    grey = np.full(3, 0.5)
    low, high = (OPACITY * np.array(to_rgb(colour)) + (1 - OPACITY) * grey for colour in (BENIGN, MALIGNANT))
    colours = LinearSegmentedColormap.from_list("evidence", np.stack([low, grey, high]))
    scale = ScalarMappable(Normalize(-FULL, FULL), colours)
    figure.set_figheight(figure.get_figheight() + 0.9)
    bar = figure.colorbar(scale, ax=figure.axes, location="top", extend="both", fraction=0.02, aspect=50)
    bar.set_label("log-odds: evidence against malignant (blue), for malignant (vermillion)")
    return figure


def windows(images: Images, found: np.ndarray, given: np.ndarray, overlaps: np.ndarray, title: str) -> Figure:
    """Draw frames with the window that the model found and the window around the given box.

    First come the WORST frames with the smallest overlap, then up to USUAL of the other frames, by rising overlap.

    Args: images: with boxes; found, given: windows, [n, 4], as in `Answer`; overlaps: [n], IoU of found and given.
    """
    order = np.argsort(overlaps, kind="stable")
    usual = np.unique(np.linspace(WORST, max(len(order) - 1, WORST), USUAL).astype(int))
    shown, tiles = [int(i) for i in dict.fromkeys([*order[:WORST], *order[usual[usual < len(order)]]])], []
    for i in shown:
        picture = Image.fromarray(images.pixels[i]).convert("RGB").resize((SEEN, SEEN), Image.Resampling.BILINEAR)
        for window, colour in ((given[i], MALIGNANT), (found[i], "white")):
            x, y, width, height = SEEN * window
            ImageDraw.Draw(picture).rectangle([x, y, x + width, y + height], outline=colour, width=2)
        tiles.append(np.asarray(picture)[None])
    captions = [f"{Path(images.table['image'][i]).name}: IoU {overlaps[i]:.2f}" for i in shown]
    return figures.image_sheet(np.stack(tiles), captions, 4, title, note=WINDOWS)
