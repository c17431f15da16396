"""Losses on one logit per image. Targets are P(malignant) in [0, 1]: 0 or 1, or between when mixup blends images."""

import torch
import torch.nn.functional as F


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy -[y log p + (1 - y) log(1 - p)] with p = sigmoid(logit). All tensors [n]."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss |y - p|^gamma times cross-entropy. All tensors [n].

    For y of 0 or 1 this is -(1 - p_t)^gamma log p_t (Lin et al., ICCV 2017, eq. 4); the form in |y - p| carries it
    over to targets in between (Li et al., NeurIPS 2020, eq. 4).
    """
    return (targets - logits.sigmoid()).abs() ** gamma * cross_entropy(logits, targets)


def class_weights(labels: torch.Tensor, scheme: str) -> torch.Tensor:
    """Weights [2] of class 0 and 1: ones for "none"; for "balanced" inverse to their frequency, n / (2 n_c), so that
    both classes weigh the same (King & Zeng, Political Analysis 2001; scikit-learn's class_weight="balanced").

    Args: labels: [n] of 0 or 1, both present.
    """
    if scheme == "none":
        return torch.ones(2, device=labels.device)
    return len(labels) / (2 * torch.bincount(labels.long(), minlength=2))


LOSSES = {"cross-entropy": cross_entropy, "focal": focal}  # by the names of --loss


def training_loss(logits, targets, loss: str, label_smoothing: float, class_weights: torch.Tensor) -> torch.Tensor:
    """The training loss of a batch: the weighted mean of `loss` (a name of LOSSES) over the images, whose targets label
    smoothing moves that share of the way to 1/2 (Szegedy et al., CVPR 2016, section 7).

    Args: logits, targets: [n]; label_smoothing in [0, 1); class_weights: [2], blended as the target is.
    """
    weights = class_weights[1] * targets + class_weights[0] * (1 - targets)
    per_image = LOSSES[loss](logits, targets * (1 - label_smoothing) + label_smoothing / 2)
    return (weights * per_image).sum() / weights.sum()
