"""Training as one CUDA graph, for trying many ideas quickly.

At 28x28 a step of training is hundreds of small GPU kernels, and starting them costs more than running them. Here the
whole step (drawing the batch, augmentation, mixing, forward, backward, AdamW, weight average) is captured once as a
CUDA graph and then replayed, so that the five folds of a cross-validation take seconds on one GPU. A graph replays the
same kernels on the same memory, so everything that changes from step to step lives in tensors that are made once: the
images, the order of the batches, the rates, the step's number. `fit` fills them anew for every fold and seed.

It is a laboratory, not the recipe of train.py: random numbers are drawn on the device, and the last batch of an epoch
is filled up to full size. On a CPU the same steps run without a graph, for checks; results differ from a GPU's.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import loss
from common.data import Split
from common.model import GREY_MEAN, GREY_STD, BreastResNet, initial_state, load_weights
from common.training import learning_rate

MIRROR = 0.5  # probability of a left-right flip, in every configuration
BETAS = (0.9, 0.999)  # of AdamW
EPSILON = 1e-8  # of AdamW
WARM_UP_STEPS = 3  # on a side stream before the capture, as torch.cuda.graph asks for
NINE_SHIFTS = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1))  # pixels


@dataclass(frozen=True)
class Options:
    """One configuration; the defaults are the starting point that all are compared with."""

    # input
    size: int = 28  # side of the model's input in pixels; the stored images of this size are what it is scored on
    view: int = 0  # train on the stored images of this side, augmented there, then shrunk to `size`; 0: `size`
    upsample: int = 0  # the model first enlarges its input to this side; 0: it does not
    bicubic: bool = False  # enlarge by bicubic instead of bilinear interpolation
    standardise: bool = False  # by each image's own mean and deviation, not by ImageNet's
    shifts: bool = False  # predict the mean over the nine shifts by up to one pixel

    # network
    stages: int = 3  # residual stages of the trunk
    stride: int = 0  # of the stem's convolution; 0: 1 below 56 pixels, else 2
    pool: bool = True  # max pooling in the stem
    head: str = "average"  # average, max, both, GeM (power 3; Radenović et al. 2018), or average of the last two stages
    dropout: float = 0.0  # before the last layer
    stochastic_depth: float = 0.0  # drop the last block so often, earlier ones linearly less (Huang et al. 2016)
    pretrained: bool = True  # start from the weights file; else from random weights
    frozen_norm: bool = False  # batch norm keeps its pretrained statistics

    # training
    lr: float = 3e-4  # peak of AdamW's rate
    wd: float = 1e-2  # decoupled weight decay, on matrices and filters
    epochs: int = 20
    batch: int = 32
    warmup: float = 0.2  # share of the steps in which the rate climbs
    ema: float = 0.98  # decay per step of the weight average, which is what is scored
    layer_decay: float = 1.0  # each stage learns by this factor slower than the one after it
    head_rate: float = 1.0  # factor on the last layer's rate
    sam: float = 0.0  # radius of sharpness-aware minimisation (Foret et al. 2021); 0: plain gradient

    # loss
    label_smoothing: float = 0.0  # share by which targets move towards 1/2
    malignant_weight: float = 1.0  # of a malignant image in the loss; a benign one weighs 1
    conflict_weight: float = 1.0  # of training images that have a near-duplicate with the other label
    distillation: float = 0.0  # share of the loss against teachers' probabilities (Beyer et al. 2022), on the same view

    # augmentation, each amount drawn uniformly and anew for every image, as in common/augment.py
    degrees: float = 10.0  # rotation up to this, either way
    scale: float = 0.15  # zoom by up to this share
    aspect: float = 0.0  # stretch of the width by up to this share
    shift: float = 0.10  # translation by up to this share of the side
    gamma: float = 0.0  # exponent exp(U(-gamma, gamma)) on the grey values
    contrast: float = 0.2  # about the image mean, by up to this share
    brightness: float = 0.1  # added, as a share of the grey range
    noise: float = 0.0  # multiplicative Gaussian noise, as speckle is; its standard deviation
    erasing: float = 0.25  # probability of a rectangle set to the image mean
    erasing_side: float = 0.4  # its sides are at most this share of the image's
    mixup: float = 0.4  # alpha of mixup's Beta distribution (Zhang et al. 2018); 0: none
    cutmix: float = 0.0  # probability of cutmix in place of mixup (Yun et al. 2019)


class Block(nn.Module):
    """A residual block of torchvision's ResNet that training skips with probability `skip`, drawn for every image
    (Huang et al., ECCV 2016, but scaled up in training instead of down at prediction)."""

    def __init__(self, block: nn.Module, skip: float):
        super().__init__()
        self.block, self.skip = block, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.block
        identity = x if block.downsample is None else block.downsample(x)
        residual = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        if self.skip and self.training:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.skip
            residual = residual * (kept.float() / (1 - self.skip))
        return F.relu(residual + identity)


class Network(nn.Module):
    """`BreastResNet` with the variations that Options names. `fresh`: its convolutions without published weights."""

    def __init__(self, options: Options, weights: str):
        super().__init__()
        self.options, weights = options, weights if options.pretrained else "none"
        base = BreastResNet(options.size, options.stages)
        load_weights(base, weights)
        stride = options.stride or (1 if (options.upsample or options.size) < 56 else 2)
        self.conv1, self.bn1 = base.trunk.conv1, base.trunk.bn1
        self.conv1.stride = (stride, stride)
        blocks = 2 * options.stages
        for stage in range(1, options.stages + 1):
            depths = (2 * stage - 1, 2 * stage)
            pair = zip(getattr(base.trunk, f"layer{stage}"), depths)
            skipping = [Block(block, options.stochastic_depth * depth / blocks) for block, depth in pair]
            setattr(self, f"layer{stage}", nn.Sequential(*skipping))
        width = base.trunk.fc.in_features
        self.fc = nn.Linear({"both": 2 * width, "last two stages": width + width // 2}.get(options.head, width), 1)
        self.dropout = nn.Dropout(options.dropout)
        published = initial_state(weights, options.size, options.stages) if weights != "none" else {}
        convolutions = [(name, m) for name, m in base.trunk.named_modules() if isinstance(m, nn.Conv2d)]
        self.fresh = tuple(m for name, m in convolutions if f"{name}.weight" not in published)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: float [n, size, size] in [0, 1]. Returns: logits [n]."""
        x = self.normalise(images[:, None])
        x = F.relu(self.bn1(self.conv1(x.contiguous(memory_format=torch.channels_last))))
        if self.options.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        features = []
        for stage in range(1, self.options.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        return self.fc(self.dropout(self.summarise(features)))[:, 0]

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge if asked to, then shift and scale the grey values. x: [n, 1, size, size]."""
        if self.options.upsample:
            x = F.interpolate(x, self.options.upsample, mode="bicubic" if self.options.bicubic else "bilinear")
        if self.options.standardise:
            return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 0.05)
        return (x - GREY_MEAN) / GREY_STD

    def summarise(self, features: list[torch.Tensor]) -> torch.Tensor:
        """The head's input [n, width] from the stages' outputs, each [n, channels, h, w]."""
        x, head = features[-1], self.options.head
        if head == "average":
            return x.mean((2, 3))
        if head == "max":
            return x.amax((2, 3))
        if head == "GeM":
            return x.clamp(min=1e-4).pow(3).mean((2, 3)).pow(1 / 3)
        second = x.amax((2, 3)) if head == "both" else features[-2].mean((2, 3))
        return torch.cat([x.mean((2, 3)), second], 1)


def uniform(n: int, low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    """[n] draws from U(low, high) on the device of `like`, by the generator that a graph knows how to replay."""
    return low + (high - low) * torch.rand(n, device=like.device)


def affine(images: torch.Tensor, options: Options) -> torch.Tensor:
    """Mirror, rotate, scale, stretch and shift in one resampling. images: [n, h, w] in [0, 1]."""
    n = len(images)
    angle = uniform(n, -options.degrees, options.degrees, images).deg2rad()
    zoom = 1 + uniform(n, -options.scale, options.scale, images)
    stretch = 1 + uniform(n, -options.aspect, options.aspect, images) if options.aspect else 1.0
    sign = 1 - 2 * (uniform(n, 0, 1, images) < MIRROR).float()
    shift = [uniform(n, -2 * options.shift, 2 * options.shift, images) for _ in "xy"]  # the grid spans [-1, 1]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([sign * cos * stretch, -sign * sin, shift[0], sin, cos, shift[1]], 1).view(n, 2, 3)
    grid = F.affine_grid(matrix, [n, 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0]


def shrink(images: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bilinear resize of [n, h, w] to [n, size, size]; images of that size pass unchanged."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images[:, None], size, mode="bilinear", antialias=True)[:, 0]


def tones(images: torch.Tensor, options: Options) -> torch.Tensor:
    """Gamma, contrast, brightness, noise and erasing. images: [n, h, w] in [0, 1]."""
    n = len(images)
    if options.gamma:
        images = images.clamp(1e-4, 1) ** torch.exp(uniform(n, -options.gamma, options.gamma, images))[:, None, None]
    contrast = 1 + uniform(n, -options.contrast, options.contrast, images)[:, None, None]
    brightness = uniform(n, -options.brightness, options.brightness, images)[:, None, None]
    mean = images.mean((1, 2), keepdim=True)
    images = ((images - mean) * contrast + mean + brightness).clamp(0, 1)
    if options.noise:
        images = (images * (1 + options.noise * torch.randn_like(images))).clamp(0, 1)
    return erase(images, options) if options.erasing else images


def erase(images: torch.Tensor, options: Options) -> torch.Tensor:
    """Random erasing: a rectangle takes the image's mean. images: [n, h, w]."""
    n = len(images)
    inside = torch.ones_like(images, dtype=torch.bool)
    for axis, length in ((1, images.shape[1]), (2, images.shape[2])):
        side = uniform(n, 0.1, options.erasing_side, images) * length
        start = uniform(n, 0, 1, images) * (length - side)
        position = torch.arange(length, device=images.device) + 0.5
        within = (position >= start[:, None]) & (position < (start + side)[:, None])
        inside &= within.unsqueeze(3 - axis)
    chosen = uniform(n, 0, 1, images) < options.erasing
    return torch.where(inside & chosen[:, None, None], images.mean((1, 2), keepdim=True), images)


def main_share(n: int, alpha: float, like: torch.Tensor) -> torch.Tensor:
    """[n] draws of max(l, 1 - l) with l ~ Beta(alpha, alpha): the first image of a pair stays the main one."""
    gammas = torch._standard_gamma(torch.full((2, n), alpha, device=like.device))
    return (gammas.max(0).values / gammas.sum(0)).nan_to_num(1)  # a small alpha draws 0 / 0


def partners(targets: torch.Tensor) -> torch.Tensor:
    """A random permutation [n]; sorting draws needs no synchronisation, which a graph could not hold."""
    return torch.rand(len(targets), device=targets.device).argsort()


def blend(views: list[torch.Tensor], targets: torch.Tensor, options: Options):
    """Cutmix and mixup, the same on every view of an image. views: each [n, h, w]; targets: [n]."""
    partner, cut = partners(targets), None  # drawn with or without cutmix: the order of draws was measured so
    if options.cutmix:
        views, targets, cut = cutmix(views, targets, partner, options.cutmix)
    if options.mixup:
        views, targets = mixup(views, targets, options.mixup, cut)
    return views, targets


def cutmix(views: list[torch.Tensor], targets: torch.Tensor, partner: torch.Tensor, probability: float):
    """Paste a rectangle of the partner; targets blend by its area. Returns: (views, targets, which images [n])."""
    n = len(targets)
    side = (1 - main_share(n, 1.0, targets)).sqrt()
    x, y = uniform(n, 0, 1, targets), uniform(n, 0, 1, targets)
    chosen = uniform(n, 0, 1, targets) < probability
    cut = []
    for view in views:
        position = (torch.arange(view.shape[-1], device=view.device) + 0.5) / view.shape[-1]
        columns, rows = ((position - centre[:, None]).abs() < side[:, None] / 2 for centre in (x, y))
        box = (rows[:, :, None] & columns[:, None]) & chosen[:, None, None]
        cut.append(torch.where(box, view[partner], view))
        area = box.float().mean((1, 2))
    return cut, targets + (targets[partner] - targets) * area, chosen


def mixup(views: list[torch.Tensor], targets: torch.Tensor, alpha: float, spared: torch.Tensor | None):
    """Blend each image and target with a partner's; images in `spared` [n] stay as they are."""
    share = main_share(len(targets), alpha, targets)
    partner = partners(targets)
    if spared is not None:
        share = torch.where(spared, torch.ones_like(share), share)
    blended = [view.lerp(view[partner], 1 - share[:, None, None]) for view in views]
    return blended, targets.lerp(targets[partner], 1 - share)


@dataclass
class Group:
    """Parameters of one rate and weight decay, with AdamW's two moments of each."""

    parameters: list[nn.Parameter]
    multiplier: float
    wd: float
    first: list[torch.Tensor] = field(init=False)
    second: list[torch.Tensor] = field(init=False)

    def __post_init__(self):
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))


def rate_multiplier(name: str, options: Options) -> float:
    """The factor on a parameter's learning rate: layer-wise decay from the head down, and the head's own."""
    last = options.stages + 1
    stage = 0 if name.startswith(("conv1", "bn1")) else int(name[5]) if name.startswith("layer") else last
    return options.layer_decay ** (last - stage) * (options.head_rate if stage == last else 1)


def parameter_groups(network: Network, options: Options) -> list[Group]:
    """Parameters by rate and by whether weight decay is for them (matrices and filters, not biases and norms)."""
    members: dict[tuple[float, bool], list] = {}
    for name, parameter in network.named_parameters():
        members.setdefault((rate_multiplier(name, options), parameter.ndim > 1), []).append(parameter)
    return [Group(group, rate, options.wd if decays else 0.0) for (rate, decays), group in members.items()]


@dataclass
class Lab:
    """One configuration, ready to be trained on any part of a pool, with all memory that its graph works on.

    `stored` are the pool's images in the size that the model takes, `viewed` in the size that training reads; `groups`
    [n] its near-duplicates. `images`, `targets`, `weights` hold the training part, `order` [steps, batch] the indices
    into it and `rate` [steps] the learning rates; `at` is the step's number, `count` the same from 1, for AdamW.
    """

    options: Options
    teachers: list[Network]
    stored: Split
    viewed: Split
    groups: np.ndarray
    network: Network
    initial: dict[str, torch.Tensor]
    average: list[torch.Tensor]
    parameter_groups: list[Group]
    images: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    order: torch.Tensor
    rate: torch.Tensor
    at: torch.Tensor
    count: torch.Tensor
    steps: int = 0
    graph: torch.cuda.CUDAGraph | None = None


def set_precision() -> None:
    """fp32 without TF32, the fastest kernels that there are: what all results were measured with."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(False)


def prepare(options: Options, weights: str, stored: Split, viewed: Split, groups, device, teachers=()) -> Lab:
    """A Lab. Args: weights: "imagenet" or a file; groups: [n]; teachers: networks on the device, in evaluation mode."""
    n = len(stored)
    most = options.epochs * (n // options.batch + 1)
    network = Network(options, weights).to(device, memory_format=torch.channels_last)
    return Lab(
        options=options,
        teachers=list(teachers),
        stored=stored,
        viewed=viewed,
        groups=groups,
        network=network,
        initial={name: value.clone() for name, value in network.state_dict().items()},
        average=[value.clone() for value in network.state_dict().values()],
        parameter_groups=parameter_groups(network, options),
        images=torch.zeros(viewed.images.shape, device=device),
        targets=torch.zeros(n, device=device),
        weights=torch.ones(n, device=device),
        order=torch.zeros(most, options.batch, dtype=torch.long, device=device),
        rate=torch.zeros(most, device=device),
        at=torch.zeros(1, dtype=torch.long, device=device),
        count=torch.zeros(1, device=device),
    )


def draw_batch(lab: Lab):
    """The step's batch. Returns: (input [n, size, size], targets [n], weights [n], teachers' targets [n] or None)."""
    options = lab.options
    index = lab.order.index_select(0, lab.at)[0]
    images, targets, weights = lab.images[index], lab.targets[index], lab.weights[index]
    large = affine(images, options)
    if not lab.teachers:
        (small,), targets = blend([tones(shrink(large, options.size), options)], targets, options)
        return small, targets, weights, None
    large = tones(large, options)  # teacher and student must see the same view
    (small, large), targets = blend([shrink(large, options.size), large], targets, options)
    taught = torch.stack([teacher(shrink(large, teacher.options.size)) for teacher in lab.teachers])
    return small, targets, weights, taught.mean(0).sigmoid()


def batch_loss(lab: Lab, inputs, targets, weights, taught) -> torch.Tensor:
    """The weighted mean loss of a batch, all [n]; a share `distillation` is against the teachers' probabilities."""
    options, logits = lab.options, lab.network(inputs)
    targets = loss.smooth(targets, options.label_smoothing)
    weights = weights * (options.malignant_weight * targets + (1 - targets))
    per_image = loss.cross_entropy(logits, targets)
    if taught is not None:
        share = options.distillation
        per_image = (1 - share) * per_image + share * loss.cross_entropy(logits, taught)
    return (weights * per_image).sum() / weights.sum()


def sharp_gradients(lab: Lab, batch, gradients, parameters):
    """Gradients at the worst point within `sam` of the parameters (Foret et al., ICLR 2021, eqs. 2 and 3)."""
    with torch.no_grad():
        norm = torch.stack(torch._foreach_norm(gradients)).norm() + 1e-12
        climb = torch._foreach_mul(gradients, lab.options.sam / norm)
        torch._foreach_add_(parameters, climb)
    gradients = torch.autograd.grad(batch_loss(lab, *batch), parameters)
    with torch.no_grad():
        torch._foreach_sub_(parameters, climb)
    return gradients


def descend(group: Group, gradients, rate: torch.Tensor, corrections: tuple[torch.Tensor, torch.Tensor]) -> None:
    """AdamW's step for one group (Loshchilov & Hutter, ICLR 2019, algorithm 2). rate, corrections: each [1]."""
    torch._foreach_lerp_(group.first, gradients, 1 - BETAS[0])
    torch._foreach_mul_(group.second, BETAS[1])
    torch._foreach_addcmul_(group.second, gradients, gradients, 1 - BETAS[1])
    rate = rate * group.multiplier
    if group.wd:
        torch._foreach_mul_(group.parameters, (1 - rate * group.wd)[0])
    scale = torch._foreach_sqrt(group.second)
    torch._foreach_div_(scale, corrections[1].sqrt()[0])
    torch._foreach_add_(scale, EPSILON)
    update = torch._foreach_div(group.first, scale)
    torch._foreach_mul_(update, (rate / corrections[0])[0])
    torch._foreach_sub_(group.parameters, update)


def step(lab: Lab) -> None:
    """One step of training: what the graph captures. It must not wait for the GPU nor make lasting memory."""
    parameters = [p for group in lab.parameter_groups for p in group.parameters]
    with torch.no_grad():
        batch = draw_batch(lab)
    gradients = torch.autograd.grad(batch_loss(lab, *batch), parameters)
    if lab.options.sam:
        gradients = sharp_gradients(lab, batch, gradients, parameters)
    with torch.no_grad():
        lab.count += 1
        rate = lab.rate.index_select(0, lab.at)
        corrections = 1 - BETAS[0] ** lab.count, 1 - BETAS[1] ** lab.count
        for group in lab.parameter_groups:
            own, gradients = gradients[: len(group.parameters)], gradients[len(group.parameters) :]
            descend(group, own, rate, corrections)
        average, current = floating(lab.average), floating(lab.network.state_dict().values())
        torch._foreach_lerp_(average, current, 1 - lab.options.ema)
        lab.at += 1


def floating(tensors) -> list[torch.Tensor]:
    """The tensors of numbers that can be averaged: all of a state but batch norm's counts."""
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def conflict_weights(labels: np.ndarray, groups: np.ndarray, weight: float) -> np.ndarray:
    """float32 [n]: `weight` for images in a group of near-duplicates that holds both labels, 1 for the others."""
    mixed = np.intersect1d(groups[labels == 0], groups[labels == 1])
    return np.where(np.isin(groups, mixed), weight, 1).astype(np.float32)


def batch_order(n: int, batch: int, epochs: int, seed: int) -> np.ndarray:
    """Indices [steps, batch]: a permutation an epoch, its last batch filled up from another one."""
    generator, per_epoch, rows = np.random.default_rng(seed), math.ceil(n / batch), []
    for _ in range(epochs):
        order, more = generator.permutation(n), generator.permutation(n)
        rows.append(np.concatenate([order, more[: per_epoch * batch - n]]).reshape(per_epoch, batch))
    return np.concatenate(rows)


@torch.no_grad()
def reset_weights(lab: Lab) -> None:
    """Published weights, new random ones where there are none, the average at the same point, moments at 0."""
    state = lab.network.state_dict()
    for name, value in state.items():
        value.copy_(lab.initial[name])
    lab.network.fc.reset_parameters()
    for convolution in lab.network.fresh:
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    for average, value in zip(lab.average, state.values()):
        average.copy_(value)
    for group in lab.parameter_groups:
        for moment in group.first + group.second:
            moment.zero_()


def reset(lab: Lab, chosen: np.ndarray, seed: int) -> None:
    """Make ready to train on the chosen images of the pool from the start, all in place. chosen: bool [pool]."""
    options, index = lab.options, np.flatnonzero(chosen)
    torch.manual_seed(seed)
    n, labels = len(index), lab.viewed.labels[index]
    lab.images[:n].copy_(torch.from_numpy(lab.viewed.images[index]).float().div(255))
    lab.targets[:n].copy_(torch.from_numpy(labels).float())
    lab.weights[:n].copy_(torch.from_numpy(conflict_weights(labels, lab.groups[index], options.conflict_weight)))
    reset_weights(lab)
    lab.at.zero_()
    lab.count.zero_()
    order = batch_order(n, options.batch, options.epochs, seed)
    lab.steps = len(order)
    rates = [options.lr * learning_rate(i, lab.steps, options.warmup) for i in range(lab.steps)]
    lab.order[: lab.steps].copy_(torch.from_numpy(order))
    lab.rate[: lab.steps].copy_(torch.tensor(rates))
    lab.network.train()
    for module in lab.network.modules():
        if options.frozen_norm and isinstance(module, nn.BatchNorm2d):
            module.eval()


def capture(lab: Lab) -> None:
    """Record a step as a CUDA graph. It changes the weights: `reset` afterwards."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            step(lab)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    lab.graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(lab.graph):
        step(lab)


def fit(lab: Lab, chosen: np.ndarray, seed: int) -> None:
    """Train on the chosen images of the pool; then `lab.network` has the averaged weights. chosen: bool [pool]."""
    reset(lab, chosen, seed)
    if lab.graph is None and lab.images.is_cuda:
        capture(lab)
        reset(lab, chosen, seed)
    for _ in range(lab.steps):
        lab.graph.replay() if lab.graph else step(lab)
    with torch.no_grad():
        for value, average in zip(floating(lab.network.state_dict().values()), floating(lab.average)):
            value.copy_(average)


def shifted(images: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """Images [n, h, w] moved by at most two pixels; the border is repeated."""
    height, width = images.shape[1:]
    padded = F.pad(images[:, None], (2, 2, 2, 2), mode="replicate")[:, 0]
    return padded[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]


@torch.no_grad()
def predict(lab: Lab, index: np.ndarray) -> np.ndarray:
    """Logits, float64 [len(index)], of images of the pool: the mean over each and its mirror image, and over shifts."""
    lab.network.eval()
    images = torch.from_numpy(lab.stored.images[index]).float().div(255).to(lab.images.device)
    views = [shifted(images, *by) for by in NINE_SHIFTS] if lab.options.shifts else [images]
    logits = [lab.network(side) for view in views for side in (view, view.flip(-1))]
    return torch.stack(logits).mean(0).double().cpu().numpy()
