"""Grad-CAM: which parts of an image raise its probability of being malignant."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from common.metrics import STANDARD_THRESHOLD
from common.model import BreastResNet, Predictor
from common.show import figures

SHOWN = 6  # errors, and as many hits, in a sheet
NOTE = (
    "The most confident errors (pink frame) and hits (green) at the standard threshold. Beside each image, in colour, "
    "what raises P(malignant) most (Grad-CAM, each image to its own scale); no colour: nothing does."
)


def _map(member: BreastResNet, images: torch.Tensor) -> torch.Tensor:
    """Grad-CAM map of one model, not scaled: float [n, s, s], 0 or above. images: float [n, s, s] in [0, 1].

    Behind the last stage come a mean over positions and a linear layer, so the gradients that weigh its channels
    (eq. 1) are the layer's weights, and the weighted sum (eq. 2) is the model's own `evidence` without the bias.
    """
    coarse = (member.evidence(member.first_stage(images)) - member.trunk.fc.bias).relu()
    return F.interpolate(coarse[:, None], images.shape[1:], mode="bilinear", align_corners=False)[:, 0]


@torch.inference_mode()
def grad_cam(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Grad-CAM for the logit of malignant on the last residual stage (Selvaraju et al., ICCV 2017, eqs. 1-2).

    As the prediction is a mean over members and mirrored images, so is the map (each turned back). It is enlarged
    bilinearly and divided by its maximum; where nothing speaks for malignant it is all 0.

    Args: images: uint8 [n, s, s]. Returns: float32 [n, s, s] in [0, 1].
    """
    predictor.eval()
    views = torch.from_numpy(images).to(next(predictor.parameters()).device).float() / 255
    maps = [_map(member, views) for member in predictor.members]
    if predictor.mirror:
        maps += [_map(member, views.flip(-1)).flip(-1) for member in predictor.members]
    heat = torch.stack(maps).mean(0).cpu()
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()


def most_confident(labels, probabilities, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n wrongest and the n rightest calls at the standard threshold, by distance from it.

    Args: labels: [m], 1 for malignant; probabilities: [m]. Returns: (errors, hits), indices, at most n each, the
        farthest first; equally far ones in their order.
    """
    probabilities = np.asarray(probabilities, float)
    order = np.argsort(-np.abs(probabilities - STANDARD_THRESHOLD), kind="stable")
    right = ((probabilities >= STANDARD_THRESHOLD) == np.asarray(labels, bool))[order]
    return order[~right][:n], order[right][:n]


def sheet(predictor: Predictor, images: np.ndarray, labels, probabilities, title: str) -> Figure:
    """Where the model looks in the images that it gets most confidently wrong and right, each beside its map.

    Args: images: uint8 [n, s, s]; labels: [n], 1 for malignant; probabilities: [n], P(malignant).
    """
    errors, hits = most_confident(labels, probabilities, SHOWN)
    shown, verdicts = np.r_[errors, hits], ["wrong"] * len(errors) + ["right"] * len(hits)
    captions = [
        f"image {i}, {'malignant' if labels[i] else 'benign'}\nP(malignant) {probabilities[i]:.2f}, {verdict}"
        for i, verdict in zip(shown, verdicts)
    ]
    heat = grad_cam(predictor, images[shown])
    pairs, maps = np.stack([images[shown]] * 2, 1), np.stack([np.full_like(heat, np.nan), heat], 1)
    frames = [figures.MODEL if verdict == "right" else figures.CHOSEN for verdict in verdicts]
    return figures.image_sheet(pairs, captions, 3, title, heat=maps, frames=frames, note=NOTE)
