"""Grad-CAM: which parts of an image raise its probability of being malignant."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common.model import Predictor

BATCH = 32  # with gradients, far fewer images fit into memory at once than in `model.predict`


def _last_stage(member: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations [n, c, h, w] of the last residual stage, and the logits' gradients with respect to them, for float
    images [n, s, s] in [0, 1]. Nothing is left behind in the model: no hook, no gradient."""
    kept = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0]  # the logits then depend on this copy alone, whether or not the weights are frozen

    with getattr(member.trunk, f"layer{member.stages}").register_forward_hook(keep), torch.enable_grad():
        (gradients,) = torch.autograd.grad(member(images).sum(), kept)
    return kept[0].detach(), gradients


def _map(member: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Grad-CAM maps of one model, not scaled: float [n, s, s], 0 or above. images: float [n, s, s] in [0, 1]."""
    activations, gradients = _last_stage(member, images)
    weights = gradients.mean((2, 3), keepdim=True)  # eq. 1
    coarse = (weights * activations).sum(1, keepdim=True).relu()  # eq. 2
    return F.interpolate(coarse, images.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def _mean_map(predictor: Predictor, images: torch.Tensor) -> torch.Tensor:
    """The mean of the members' maps, and of their maps of the mirrored images turned back: float [n, s, s]."""
    maps = [_map(member, images) for member in predictor.members]
    if predictor.mirror:
        maps += [_map(member, images.flip(-1)).flip(-1) for member in predictor.members]
    return torch.stack(maps).mean(0)


def grad_cam(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Grad-CAM for the logit of malignant on the last residual stage (Selvaraju et al., ICCV 2017, eqs. 1-2).

    As the prediction is a mean over members and mirrored images, so is the map (each turned back). It is enlarged
    bilinearly and divided by its maximum; where nothing speaks for malignant it is all 0.

    Args: predictor: left as it is, in eval mode; images: uint8 [n, s, s].
    Returns: float32 [n, s, s] in [0, 1].
    """
    device = next(predictor.parameters()).device
    predictor.eval()
    batches = torch.from_numpy(images).split(BATCH)
    maps = torch.cat([_mean_map(predictor, batch.to(device).float() / 255).cpu() for batch in batches])
    return (maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()


def most_confident(labels, probabilities, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n wrongest and the n rightest calls at 0.5, by distance from it.

    Args: labels: [m], 1 for malignant; probabilities: [m]. Returns: (errors, hits), indices, at most n each, the
        farthest first; equally far ones in their order.
    """
    probabilities = np.asarray(probabilities, float)
    order = np.argsort(-np.abs(probabilities - 0.5), kind="stable")
    right = ((probabilities >= 0.5) == np.asarray(labels, bool))[order]
    return order[~right][:n], order[right][:n]
