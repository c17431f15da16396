"""ResNet-18 for small grey images (He et al., CVPR 2016; torchvision's layers and names), by itself or as two looks at
a lesion, and how the answers of several models become one."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.errors import UserError

GREY_MEAN, GREY_STD = 0.449, 0.226  # ImageNet's, averaged over the three colours
WINDOW = 2 / 3  # share of the window in the logit of two looks; the rest is the frame's (results/lesion.md)
COARSE = 32  # pixels a side, about which `texture` looks at: finer ones tell scanners apart (results/README.md)


class Explained(NamedTuple):
    """What models make of images, and by what.

    evidence: what each position of each look adds to the logits, [n, looks, rows, columns], whose mean they are;
    texture: what typicality is judged by, [n, features]; heat: how sure the finder is at each position of the frame
    that a lesion is there, 0 to 1, [n, side, side]; None of a model that has no finder.
    """

    evidence: torch.Tensor
    texture: torch.Tensor
    heat: torch.Tensor | None = None


class BreastResNet(nn.Module):
    """Grey images in, one logit each out: positive means malignant.

    What is small, below 64 pixels, keeps more on its way: the stem's 7x7 convolution has stride 1, not 2, and the
    fourth stage, which would see 2x2 pixels, is left off.

    Args:
        stages: of the trunk, cut from the end: 2 to 4, or "auto".
        finds: whether it also finds the lesion, by a heat map out of its third stage (or its last, if it has two).

    Raises: ValueError for another number of stages.
    """

    def __init__(self, size: int, stages: int | str = "auto", finds: bool = False):
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
        self.finder = nn.ConvTranspose2d(64 * 2 ** (min(self.stages, 3) - 1), 1, 2, 2) if finds else None

    def first_stage(self, images: torch.Tensor) -> torch.Tensor:
        """Its activations [n, 64, rows, columns]. images: float [n, size, size] or [n, 1, size, size] in [0, 1]."""
        inputs = (images - GREY_MEAN) / GREY_STD
        inputs = inputs[:, None] if images.ndim == 3 else inputs
        trunk, inputs = self.trunk, inputs.contiguous(memory_format=torch.channels_last)
        return trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(inputs)))))

    def later_stages(self, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The last stage's activations [n, channels, rows, columns], and the logits of the heat map [n, 1, side, side],
        None without a finder. first: the first stage's activations."""
        third = self.trunk.layer3(self.trunk.layer2(first))
        return self.trunk.layer4(third), None if self.finder is None else self.finder(third)

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """images: float [n, size, size] in [0, 1]. Returns: logits [n], and those of the heat map or None."""
        last, heat = self.later_stages(self.first_stage(images))
        return self.trunk.fc(self.trunk.avgpool(last).flatten(1))[:, 0], None if heat is None else heat[:, 0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: float [n, size, size] in [0, 1]. Returns: logits [n]."""
        return self.look(images)[0]

    def explain(self, images: torch.Tensor) -> Explained:
        """The logits, as class activation maps whose means they are (Zhou et al., CVPR 2016), and what leads to them.
        images: float [n, size, size] in [0, 1]."""
        first = self.first_stage(images)
        last, heat = self.later_stages(first)
        evidence = (self.trunk.fc.weight @ last.flatten(2) + self.trunk.fc.bias).reshape(-1, 1, *last.shape[2:])
        return Explained(evidence, self.texture(images, first), None if heat is None else heat[:, 0].sigmoid())

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


class TwoLooks(nn.Module):
    """Looks at the window around a lesion and at the whole frame; the logit is the mean of both. The network that sees
    the frame also finds the lesion."""

    def __init__(self, window: BreastResNet, frame: BreastResNet):
        super().__init__()
        self.window, self.frame = window, frame

    @classmethod
    def of_trained(cls, window: BreastResNet, frame: BreastResNet) -> "TwoLooks":
        """Two networks, each trained by itself. Their last layers are scaled, so that the mean of both logits has the
        share WINDOW of the window's."""
        looks = cls(window, frame)
        with torch.no_grad():
            for network, share in ((window, WINDOW), (frame, 1 - WINDOW)):
                for weights in network.trunk.fc.parameters():
                    weights.mul_(2 * share)
        return looks

    @property
    def size(self) -> int:
        """Pixels a side of window and frame."""
        return self.frame.size

    @property
    def stages(self) -> int:
        """Of each trunk."""
        return self.frame.stages

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: float [n, 2, size, size] in [0, 1], windows and frames. Returns: logits [n]."""
        return (self.window(images[:, 0]) + self.frame(images[:, 1])) / 2

    def explain(self, images: torch.Tensor) -> Explained:
        """images: float [n, 2, size, size] in [0, 1], windows and frames."""
        window, frame = self.window.explain(images[:, 0]), self.frame.explain(images[:, 1])
        evidence, texture = (torch.cat(pair, 1) for pair in zip(window[:2], frame[:2]))
        return Explained(evidence, texture, frame.heat)

    def streamlined(self) -> "TwoLooks":
        """As that of `BreastResNet`."""
        return TwoLooks(self.window.streamlined(), self.frame.streamlined())


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """Left and right changed, by a product that every runtime of ONNX takes. images: float [..., rows, columns]."""
    column = torch.arange(images.shape[-1], device=images.device)
    return images @ (column + column[:, None] == images.shape[-1] - 1).to(images.dtype)


class Predictor(nn.Module):
    """One model, or the mean of an ensemble, as it is used: stored images in, logits out, not calibrated.

    This is the one place that says how members are averaged: their logits, each the mean over the image and its mirror
    image, are averaged with equal weight. Their evidence and heat maps likewise, those of mirror images mirrored back.
    """

    def __init__(self, members: Sequence[nn.Module], mirror: bool):
        super().__init__()
        self.members: Any = nn.ModuleList(members)  # each a BreastResNet, or each a TwoLooks
        self.mirror = mirror

    @property
    def finder(self) -> "Predictor | None":
        """What finds the lesion in whole frames, as `explain` of it says; None where the members do not look for it."""
        frames = [member.frame if isinstance(member, TwoLooks) else member for member in self.members]
        return Predictor(frames, self.mirror) if frames[0].finder is not None else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: uint8 [n, size, size], or [n, 2, size, size] of two looks. Returns: logits [n], float32."""
        views = self.views(images)
        return torch.stack([member(view) for member in self.members for view in views]).mean(0)

    def views(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each member sees, float in [0, 1] of the same shape."""
        images = images.float() / 255
        return [images, mirrored(images)] if self.mirror else [images]

    def explain(self, images: torch.Tensor) -> Explained:
        """images: as `forward`. Returns: the members' mean, but the texture of the first, of the image as stored."""
        of_views = [[member.explain(view) for member in self.members] for view in self.views(images)]

        def mean(name: str) -> torch.Tensor:
            maps = [torch.stack([getattr(one, name) for one in explained]).mean(0) for explained in of_views]
            return (maps[0] + mirrored(maps[1])) / 2 if self.mirror else maps[0]

        heat = None if of_views[0][0].heat is None else mean("heat")
        return Explained(mean("evidence"), of_views[0][0].texture, heat)


def device_of(name: str) -> torch.device:
    """The device of a --device flag: "auto" is the GPU if there is one, else the CPU. Raises: UserError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU. Use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def predict(predictor: Predictor, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Logits, float64 [n], of uint8 images, in full precision, on the predictor's device. images: as it takes them."""
    device = next(predictor.parameters()).device
    predictor.eval()
    parts = torch.from_numpy(images).split(batch)
    return torch.cat([predictor(part.to(device)).cpu() for part in parts]).double().numpy()


@torch.inference_mode()
def explain(predictor: Predictor, images: np.ndarray, batch: int = 256) -> Explained:
    """What leads to the logits of uint8 images, as `predict` takes them: float32 on the CPU."""
    device = next(predictor.parameters()).device
    predictor.eval()
    parts = [predictor.explain(part.to(device)) for part in torch.from_numpy(images).split(batch)]
    evidence, texture = (torch.cat([getattr(one, name).cpu() for one in parts]) for name in ("evidence", "texture"))
    heat = [one.heat.cpu() for one in parts if one.heat is not None]
    return Explained(evidence, texture, torch.cat(heat) if heat else None)
