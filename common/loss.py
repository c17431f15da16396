"""Losses on one logit per image. Targets are P(malignant) in [0, 1]: 0 or 1, or between when mixup blends images."""

import torch
import torch.nn.functional as F


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return binary cross-entropy -[y log p + (1 - y) log(1 - p)] with p = sigmoid(logit). All tensors are [n]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Return focal loss |y - p|^gamma times cross-entropy. All tensors are [n].

    For y = 0 and y = 1, the loss is -(1 - p_t)^gamma log p_t (Lin et al., ICCV 2017, eq. 4). The form with |y - p|
    covers targets between 0 and 1 (Li et al., NeurIPS 2020, eq. 4).
    """
    return (targets - logits.sigmoid()).abs() ** gamma * cross_entropy(logits, targets)


def class_weights(labels: torch.Tensor, scheme: str) -> torch.Tensor:
    """Return the weights of classes 0 and 1, float [2].

    "none" gives ones. "balanced" gives n / (2 n_c), so that both classes weigh the same (King & Zeng, Political
    Analysis 2001; scikit-learn's class_weight="balanced").

    Args: labels: [n], 0 or 1, both present; scheme: "none" or "balanced".
    """
    if scheme == "none":
        return torch.ones(2, device=labels.device)
    return len(labels) / (2 * torch.bincount(labels.long(), minlength=2))


LOSSES = {"cross-entropy": cross_entropy, "focal": focal}  # keys are values of --loss


def training_loss(logits, targets, loss: str, label_smoothing: float, class_weights: torch.Tensor) -> torch.Tensor:
    """Return the training loss of a batch: the weighted mean of a loss over the images.

    Label smoothing moves each target towards 1/2 by a share of the way (Szegedy et al., CVPR 2016, section 7).

    Args: logits, targets: [n]; loss: a key of LOSSES; label_smoothing: in [0, 1); class_weights: [2], blended as the
    targets are.
    """
    weights = class_weights[1] * targets + class_weights[0] * (1 - targets)
    per_image = LOSSES[loss](logits, targets * (1 - label_smoothing) + label_smoothing / 2)
    return (weights * per_image).sum() / weights.sum()
