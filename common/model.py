"""ResNet-18 for small grey images (He et al., CVPR 2016; torchvision's layers and names)."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.errors import UserError

GREY_MEAN, GREY_STD = 0.449, 0.226  # ImageNet's, averaged over the three colours
COARSE = 32  # pixels a side, about which `texture` looks at: finer ones tell scanners apart (results/README.md)


class BreastResNet(nn.Module):
    """Grey images in, one logit each out: positive means malignant.

    What is small, below 64 pixels, keeps more on its way: the stem's 7x7 convolution has stride 1, not 2, and the
    fourth stage, which would see 2x2 pixels, is left off.

    Args:
        stages: of the trunk, cut from the end: 2 to 4, or "auto".

    Raises: ValueError for another number of stages.
    """

    def __init__(self, size: int, stages: int | str = "auto"):
        super().__init__()
        if stages not in ("auto", 2, 3, 4):
            raise ValueError(f"no ResNet-18 has {stages!r} stages")
        small = size < 64
        self.size = size
        self.stages = (3 if small else 4) if stages == "auto" else int(stages)
        trunk = torchvision.models.resnet18(num_classes=1)
        trunk.conv1 = nn.Conv2d(1, 64, 7, stride=1 if small else 2, padding=3, bias=False)
        for stage in range(self.stages + 1, 5):
            setattr(trunk, f"layer{stage}", nn.Identity())
        trunk.fc = nn.Linear(64 * 2 ** (self.stages - 1), 1)
        self.trunk = trunk.to(memory_format=torch.channels_last)  # a third faster on CPU

    def first_stage(self, images: torch.Tensor) -> torch.Tensor:
        """Its activations [n, 64, rows, columns]. images: float [n, size, size] in [0, 1]."""
        inputs = ((images - GREY_MEAN) / GREY_STD)[:, None]
        trunk, inputs = self.trunk, inputs.contiguous(memory_format=torch.channels_last)
        return trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(inputs)))))

    def last_stage(self, first: torch.Tensor) -> torch.Tensor:
        """Its activations [n, channels, rows, columns]. first: those of the first stage."""
        return self.trunk.layer4(self.trunk.layer3(self.trunk.layer2(first)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: float [n, size, size] in [0, 1]. Returns: logits [n]."""
        return self.trunk.fc(self.trunk.avgpool(self.last_stage(self.first_stage(images))).flatten(1))[:, 0]

    def evidence(self, first: torch.Tensor) -> torch.Tensor:
        """What each position adds to the logit: float [n, rows, columns], whose mean is the logit (class activation
        mapping, Zhou et al., CVPR 2016). first: the first stage's activations."""
        last = self.last_stage(first)
        return (self.trunk.fc.weight @ last.flatten(2) + self.trunk.fc.bias).reshape(-1, *last.shape[2:])

    def texture(self, images: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """What typicality is judged by, float [n, 134]: logarithms of the mean magnitude and of the standard deviation,
        over positions, of the first stage's channels, of the picture, and of its differences from row to row and from
        column to column. images: float [n, size, size] in [0, 1]; first: their first stage's activations."""
        if (factor := images.shape[-1] // COARSE) > 1:
            images = F.avg_pool2d(images[:, None], factor)[:, 0]
            first = self.first_stage(images)
        picture = images[:, None] / GREY_STD
        maps = (first, picture, picture.diff(dim=2), picture.diff(dim=3))
        statistics = [torch.cat([m.abs().mean((2, 3)), m.std((2, 3), correction=0)], 1) for m in maps]
        return (torch.cat(statistics, 1) + 0.05).log()  # 0.05: what is much less than that is none

    def streamlined(self) -> "BreastResNet":
        """A copy that computes the same in less time: batch normalisations are part of the convolutions before them,
        and the stem pools before its ReLU, since onnxruntime is many times slower to pool uint8."""
        folded = copy.deepcopy(self).eval()
        for module in folded.modules():
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):  # torchvision's names
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
        folded.trunk.relu, folded.trunk.maxpool = folded.trunk.maxpool, folded.trunk.relu
        return folded


class Predictor(nn.Module):
    """One model, or the mean of an ensemble, as it is used: stored images in, logits out, not calibrated.

    This is the one place that says how members are averaged: their logits, each the mean over the image and its mirror
    image, are averaged with equal weight. Their evidence maps likewise, those of mirror images mirrored back.
    """

    def __init__(self, members: Sequence[nn.Module], mirror: bool):
        super().__init__()
        self.members: Any = nn.ModuleList(members)  # each a BreastResNet
        self.mirror = mirror

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: uint8 [n, size, size]. Returns: logits [n], float32."""
        views = self.views(images)
        return torch.stack([member(view) for member in self.members for view in views]).mean(0)

    def views(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each member sees, float [n, size, size] in [0, 1]."""
        images = images.float() / 255
        return [images, images.flip(-1)] if self.mirror else [images]

    def evidence(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """images: uint8 [n, size, size]. Returns: what each position adds to the logits, [n, rows, columns], whose mean
        they are; and the `texture` of the images to the first member, [n, 134]."""
        views = self.views(images)
        first = [[member.first_stage(view) for view in views] for member in self.members]
        maps = [[member.evidence(stage) for stage in stages] for member, stages in zip(self.members, first)]
        both = [torch.stack(sided).mean(0) for sided in zip(*maps)]
        turned = (both[0] + both[1].flip(-1)) / 2 if self.mirror else both[0]
        return turned, self.members[0].texture(views[0], first[0][0])


def device_of(name: str) -> torch.device:
    """The device of a --device flag: "auto" is the GPU if there is one, else the CPU. Raises: UserError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def predict(predictor: Predictor, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Logits, float64 [n], of uint8 images [n, size, size], in full precision, on the predictor's device."""
    device = next(predictor.parameters()).device
    predictor.eval()
    parts = torch.from_numpy(images).split(batch)
    return torch.cat([predictor(part.to(device)).cpu() for part in parts]).double().numpy()


@torch.inference_mode()
def explain(predictor: Predictor, images: np.ndarray, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Evidence maps, float32 [n, rows, columns], and textures [n, 134], of uint8 images [n, size, size], as `predict`
    does."""
    device = next(predictor.parameters()).device
    predictor.eval()
    parts = [predictor.evidence(part.to(device)) for part in torch.from_numpy(images).split(batch)]
    maps, textures = (torch.cat([values.cpu() for values in given]).numpy() for given in zip(*parts))
    return maps, textures
