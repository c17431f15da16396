"""ResNet-18 for small grey images (He et al., CVPR 2016), two networks and a box for the view lesion, and ensembles.

Layers and their names are those of torchvision.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.errors import UserError

GREY_MEAN, GREY_STD = 0.449, 0.226  # mean and deviation of ImageNet, averaged over the colours
# The logit of the view lesion is WINDOW_SHARE times the logit of the window, plus 1 - WINDOW_SHARE times the logit of
# the frame, plus BOX_SHARE times the logit of the box (results/lesion.md).
WINDOW_SHARE, BOX_SHARE = 2 / 3, 1 / 2
COARSE = 32  # rough side in pixels of images for `texture`; finer detail depends on the scanner (results/README.md)


class Explained(NamedTuple):
    """The reasons of a model for its logits.

    evidence: for each look [n, rows, columns], what each position adds; texture: [n, features], from which the
    typicality is computed; heat: [n, side, side], 0 to 1, how sure the finder is of a lesion at each position of the
    frame; None for a model without a finder. Texture and heat are of the frame. The box adds the same to each position
    of the window.
    """

    evidence: tuple[torch.Tensor, ...]
    texture: torch.Tensor
    heat: torch.Tensor | None = None

    @property
    def logits(self) -> torch.Tensor:
        """Logits [n]: the mean over looks of the mean evidence."""
        return torch.stack([maps.mean((1, 2)) for maps in self.evidence]).mean(0)


class BreastResNet(nn.Module):
    """ResNet-18 that gives one logit for each grey image. A positive logit means malignant.

    For images below 64 pixels, the 7x7 convolution of the stem has stride 1 instead of 2, to keep more detail. With
    "auto" stages, these images skip the fourth stage, which would see only 2x2 pixels. A model with a finder skips the
    fourth stage, too, and so has a quarter of the weights (results/lesion.md has the AUCs).

    Args:
        size: side of the images in pixels.
        stages: number of residual stages of the trunk, 2 to 4, or "auto": 3 for images below 64 pixels and with a
            finder, otherwise 4.
        finds: whether the model has a finder: a heat map from the third stage (from the second, if there are two).

    Raises: ValueError on another number of stages.
    """

    def __init__(self, size: int, stages: int | str = "auto", finds: bool = False):
        super().__init__()
        if stages not in ("auto", 2, 3, 4):
            raise ValueError(f"no ResNet-18 has {stages!r} stages")
        small = size < 64
        self.size = size
        self.stages = (3 if small or finds else 4) if stages == "auto" else int(stages)
        trunk = torchvision.models.resnet18(num_classes=1)
        trunk.conv1 = nn.Conv2d(1, 64, 7, stride=1 if small else 2, padding=3, bias=False)
        for stage in range(self.stages + 1, 5):
            setattr(trunk, f"layer{stage}", nn.Identity())
        trunk.fc = nn.Linear(64 * 2 ** (self.stages - 1), 1)
        self.trunk = trunk.to(memory_format=torch.channels_last)  # a third faster on CPU
        self.finder = nn.ConvTranspose2d(64 * 2 ** (min(self.stages, 3) - 1), 1, 2, 2) if finds else None

    def first_stage(self, images: torch.Tensor) -> torch.Tensor:
        """Return the activations of the first stage, [n, 64, rows, columns].

        Args: images: float [n, size, size] or [n, 1, size, size] in [0, 1].
        """
        inputs = (images - GREY_MEAN) / GREY_STD
        inputs = inputs[:, None] if images.ndim == 3 else inputs
        trunk, inputs = self.trunk, inputs.contiguous(memory_format=torch.channels_last)
        return trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(inputs)))))

    def later_stages(self, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the activations of the last stage, [n, channels, rows, columns], and the logits of the heat map.

        Args: first: the activations of the first stage. The heat map is [n, 1, side, side]; None without a finder.
        """
        third = self.trunk.layer3(self.trunk.layer2(first))
        return self.trunk.layer4(third), None if self.finder is None else self.finder(third)

    def logits_and_heat(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits [n], and logits of the heat map [n, side, side] or None. images: [n, size, size] in [0, 1]."""
        last, heat = self.later_stages(self.first_stage(images))
        return self.trunk.fc(self.trunk.avgpool(last).flatten(1))[:, 0], None if heat is None else heat[:, 0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits [n]. images: float [n, size, size] in [0, 1]."""
        return self.logits_and_heat(images)[0]

    def explain(self, images: torch.Tensor) -> Explained:
        """Return class activation maps (Zhou et al., CVPR 2016), texture and heat. The mean of a map is the logit.

        Args: images: float [n, size, size] in [0, 1].
        """
        first = self.first_stage(images)
        last, heat = self.later_stages(first)
        evidence = (self.trunk.fc.weight @ last.flatten(2) + self.trunk.fc.bias).reshape(-1, *last.shape[2:])
        heat = None if heat is None else heat.sigmoid()
        return Explained((evidence,), self.texture(images, first, heat), None if heat is None else heat[:, 0])

    def texture(self, images: torch.Tensor, first: torch.Tensor, heat: torch.Tensor | None) -> torch.Tensor:
        """Return the features from which the typicality is computed, float [n, 134], with a finder [n, 136].

        The features are logarithms of the mean magnitude and of the standard deviation over positions. They describe
        the channels of the first stage, the picture, its differences from row to row and from column to column, and
        the heat map of a finder.

        Args: images: float [n, size, size] in [0, 1]; images of 2 * COARSE pixels or more are first averaged to about
        COARSE pixels; first: the activations of the first stage, for images that are not averaged; heat: [n, 1, side,
        side] in [0, 1], or None.
        """
        if (factor := images.shape[-1] // COARSE) > 1:
            images = F.avg_pool2d(images[:, None], factor)[:, 0]
            first = self.first_stage(images)
        picture = images[:, None] / GREY_STD
        maps = [first, picture, picture.diff(dim=2), picture.diff(dim=3)] + ([] if heat is None else [heat])
        statistics = [torch.cat([m.abs().mean((2, 3)), m.std((2, 3), correction=0)], 1) for m in maps]
        return (torch.cat(statistics, 1) + 0.05).log()  # 0.05 makes much smaller statistics equal

    def streamlined(self) -> "BreastResNet":
        """Return a copy that computes the same in less time.

        Batch normalisations become part of the convolutions before them. The stem pools before its ReLU, because
        onnxruntime takes many times longer to pool uint8.
        """
        folded = copy.deepcopy(self).eval()
        for module in folded.modules():
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):  # torchvision's names
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
        folded.trunk.relu, folded.trunk.maxpool = folded.trunk.maxpool, folded.trunk.relu
        return folded


class TwoLooks(nn.Module):
    """Two networks: for the window around a lesion, and for the whole frame. The logit is the mean of both logits.

    The network of the frame finds the lesion. The box around the lesion adds to the logit of the window: its size and
    its shape tell malignant from benign, too, and a window has the same size and shape for all lesions.

    Args: box: a layer from `lesion.extents_of`, [n, 2], to a logit [n, 1]. The last layers of all three parts already
    have their shares, as `of_trained` gives them.
    """

    def __init__(self, window: BreastResNet, frame: BreastResNet, box: nn.Linear):
        super().__init__()
        self.window, self.frame, self.box = window, frame, box

    @classmethod
    def of_trained(cls, window: BreastResNet, frame: BreastResNet, box: nn.Linear) -> "TwoLooks":
        """Join networks and box, which were fitted separately, and scale their last layers in place by their shares."""
        shares = ((window.trunk.fc, WINDOW_SHARE), (frame.trunk.fc, 1 - WINDOW_SHARE), (box, BOX_SHARE))
        with torch.no_grad():
            for layer, share in shares:
                for weights in layer.parameters():
                    weights.mul_(2 * share)  # the mean of the logits of window and frame halves them
        return cls(window, frame, box)

    @property
    def size(self) -> int:
        """Side of the window and of the frame, in pixels."""
        return self.frame.size

    @property
    def stages(self) -> list[int]:
        """Number of residual stages of the network of the window, and of that of the frame."""
        return [self.window.stages, self.frame.stages]

    def forward(self, images: torch.Tensor, extents: torch.Tensor) -> torch.Tensor:
        """Return the logits [n].

        Args: images: float [n, 2, size, size] in [0, 1], windows and frames; extents: float [n, 2], of the boxes.
        """
        return (self.window(images[:, 0]) + self.box(extents)[:, 0] + self.frame(images[:, 1])) / 2

    def explain(self, images: torch.Tensor, extents: torch.Tensor) -> Explained:
        """Return class activation maps, texture and heat. images, extents: as for `forward`."""
        window, frame = self.window.explain(images[:, 0]), self.frame.explain(images[:, 1])
        of_window = window.evidence[0] + self.box(extents)[:, :, None]
        return Explained((of_window, *frame.evidence), frame.texture, frame.heat)

    def streamlined(self) -> "TwoLooks":
        """Return a copy that computes the same in less time, as `BreastResNet.streamlined` does."""
        return TwoLooks(self.window.streamlined(), self.frame.streamlined(), copy.deepcopy(self.box))


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """Mirror images left-right by a product, which every ONNX runtime computes. images: float [..., rows, columns]."""
    column = torch.arange(images.shape[-1], device=images.device)
    return images @ (column + column[:, None] == images.shape[-1] - 1).to(images.dtype)


class Predictor(nn.Module):
    """One model, or the mean of an ensemble: uint8 images in, uncalibrated logits out.

    Only this class averages members. All members have equal weight. With `mirror`, each logit is the mean over an
    image and its mirror image. Evidence and heat are averaged in the same way; mirrored maps are mirrored back.
    """

    def __init__(self, members: Sequence[nn.Module], mirror: bool):
        super().__init__()
        self.members: Any = nn.ModuleList(members)  # all are BreastResNet, or all are TwoLooks
        self.mirror = mirror

    @property
    def finder(self) -> "Predictor | None":
        """Predictor of frames with the heat map of the lesion in `explain`; None if the members have no finder."""
        frames = [member.frame if isinstance(member, TwoLooks) else member for member in self.members]
        return Predictor(frames, self.mirror) if frames[0].finder is not None else None

    def forward(self, images: torch.Tensor, *extents: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [n].

        Args: images: uint8 [n, size, size], or [n, 2, size, size] for two looks; extents: only for two looks, float32
        [n, 2], as for `TwoLooks.forward`.
        """
        views = self.with_mirror(images)
        return torch.stack([member(view, *extents) for member in self.members for view in views]).mean(0)

    def with_mirror(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return what each member sees, float in [0, 1]: the images and, with `mirror`, the mirror images."""
        images = images.float() / 255
        return [images, mirrored(images)] if self.mirror else [images]

    def explain(self, images: torch.Tensor, *extents: torch.Tensor) -> Explained:
        """Return the mean evidence and heat of the members, and the texture of the first member for unmirrored images.

        Args: images, extents: as for `forward`.
        """
        explained = [member.explain(view, *extents) for view in self.with_mirror(images) for member in self.members]

        def mean(maps: Sequence[torch.Tensor]) -> torch.Tensor:
            of_views = torch.stack(list(maps)).unflatten(0, (-1, len(self.members))).mean(1)
            return (of_views[0] + mirrored(of_views[1])) / 2 if self.mirror else of_views[0]

        evidence = tuple(mean(of_look) for of_look in zip(*(one.evidence for one in explained)))
        heats = [one.heat for one in explained if one.heat is not None]
        return Explained(evidence, explained[0].texture, mean(heats) if heats else None)


def device_of(name: str) -> torch.device:
    """Return the device of a --device flag. "auto" is the GPU if there is one, otherwise the CPU. Raises: UserError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU. Use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def batches(predictor: Predictor, inputs: Sequence[np.ndarray], size: int) -> Iterator[list[torch.Tensor]]:
    """Yield the inputs of a predictor on its device, `size` images at a time. The predictor is ready to predict."""
    device = next(predictor.parameters()).device
    predictor.eval()
    for parts in zip(*(torch.from_numpy(values).split(size) for values in inputs)):
        yield [part.to(device) for part in parts]


@torch.inference_mode()
def predict(predictor: Predictor, *inputs: np.ndarray, batch: int = 256) -> np.ndarray:
    """Return the logits of images, float64 [n], computed without autocast on the device of the predictor.

    Args: inputs: as for `Predictor.forward`, such as `looks.Look.inputs`; batch: images at a time.
    """
    return torch.cat([predictor(*part).cpu() for part in batches(predictor, inputs, batch)]).double().numpy()


@torch.inference_mode()
def explain(predictor: Predictor, *inputs: np.ndarray, batch: int = 256) -> Explained:
    """Return evidence, texture and heat of images, float32 on the CPU. inputs, batch: as for `predict`."""
    parts = [predictor.explain(*part) for part in batches(predictor, inputs, batch)]
    evidence = tuple(torch.cat(of_look).cpu() for of_look in zip(*(one.evidence for one in parts)))
    heat = [one.heat for one in parts if one.heat is not None]
    return Explained(evidence, torch.cat([one.texture for one in parts]).cpu(), torch.cat(heat).cpu() if heat else None)
