"""Weights in files: reading them without running code in them, and starting a model from published ones."""

import hashlib
import os
import sys
import warnings
import zipfile
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path

import torch
import torchvision

from common.errors import UserError
from common.files import replacing
from common.model import GREY_STD, BreastResNet
from common.settings import Settings

CHANNEL_STD = (0.229, 0.224, 0.225)  # ImageNet's, of red, green and blue
WAYS_OUT = "give --weights FILE (a state dict of torchvision's ResNet-18), or --weights none to train from scratch"


def check_zip(path: str | Path) -> None:
    """torch's files are zip files without compression, whose checksums torch.load leaves unread. Raises: ValueError
    when one is wrong, or when a member would unpack to more than the file holds."""
    if not zipfile.is_zipfile(path):  # of an old torch: checked while it is read
        return
    with zipfile.ZipFile(path) as members:
        if sum(member.file_size for member in members.infolist()) > os.path.getsize(path) or members.testzip():
            raise ValueError("damaged")


def read_tensors(path: str | Path, kind: str, way_out: str):
    """What torch saved in a file, if it is tensors and plain values: weights_only, so no code in it ever runs.

    Args: kind, way_out: words for the error. Raises: UserError.
    """
    try:
        check_zip(path)
        with warnings.catch_warnings(action="ignore"):  # of torch, about files that are not its own
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {way_out}") from None
    except Exception:  # torch.load raises anything on a file that is not its own
        raise UserError(f"{path}: not {kind}, or a damaged one; {way_out}") from None


def write_tensors(path: Path, content: dict) -> None:
    """A file of tensors and plain values, which `read_tensors` reads. Raises: UserError."""
    with replacing(path) as beside:
        try:
            torch.save(content, beside)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from None


def grey_stem(filters: torch.Tensor) -> torch.Tensor:
    """Colour filters [64, 3, 7, 7] as grey ones [64, 1, 7, 7] with the same response to a grey image: their sum, each
    colour rescaled from its own standard deviation to the grey one's."""
    scale = GREY_STD / filters.new_tensor(CHANNEL_STD)
    return (filters * scale[:, None, None]).sum(1, keepdim=True)


def read_weights(weights: str) -> dict:
    """A state dict of torchvision's ResNet-18.

    Args: weights: "imagenet" (downloaded once into torch's cache, its hash checked), or the path of a file.
    Raises: UserError.
    """
    if weights != "imagenet":
        state = read_tensors(weights, "a file of plain tensors saved by torch", WAYS_OUT)
    else:
        try:
            with redirect_stdout(sys.stderr):
                published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
                state = published.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise UserError(f"ImageNet weights cannot be downloaded ({error}); {WAYS_OUT}") from None
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{weights}: not a state dict; {WAYS_OUT}")
    return state


@lru_cache
def weights_md5(weights: str) -> str | None:
    """MD5 of a file of weights as it was when first asked for, which says more than its name; None for "imagenet" and
    "none". Raises: UserError."""
    if weights in ("imagenet", "none"):
        return None
    try:
        with open(weights, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{weights}: cannot be read ({error.strerror}); {WAYS_OUT}") from None


def check_trunk(state: dict, weights: str) -> None:
    """Raises: UserError on a name or shape that is not torchvision's ResNet-18's, or on values that are no numbers."""
    with torch.device("meta"):  # shapes alone
        reference = torchvision.models.resnet18().state_dict()
    for name, tensor in state.items():
        if name not in reference:
            raise UserError(f"{weights}: {name!r} is no layer of torchvision's ResNet-18; {WAYS_OUT}")
        if tensor.shape != reference[name].shape:
            shapes = f"{list(tensor.shape)}, ResNet-18 has {list(reference[name].shape)}"
            raise UserError(f"{weights}: {name} has shape {shapes}; {WAYS_OUT}")
        if tensor.layout != torch.strided or not tensor.isfinite().all():
            raise UserError(f"{weights}: {name} holds values that are no numbers; {WAYS_OUT}")


@lru_cache
def initial_state(weights: str, size: int, stages: int) -> dict:
    """The published weights that fit a BreastResNet, grey stem included; what stays random is named in a line.

    Args: weights: "imagenet" or a path; a file may be complete or a trunk, and its `fc`, of other classes, is not used.
    Raises: UserError.
    """
    state = {name: tensor for name, tensor in read_weights(weights).items() if not name.startswith("fc.")}
    check_trunk(state, weights)
    own = BreastResNet(size, stages).trunk.state_dict()
    if not state.keys() & own.keys():
        raise UserError(f"{weights}: holds no layer of the model; {WAYS_OUT}")
    absent = {name.split(".")[0] for name in own if name not in state and not name.endswith("num_batches_tracked")}
    print(f"weights: {weights}; these layers start at random: {', '.join(sorted(absent))}", file=sys.stderr)
    if "conv1.weight" in state:
        state["conv1.weight"] = grey_stem(state["conv1.weight"])
    return {name: tensor for name, tensor in state.items() if name in own}


def load_weights(model: BreastResNet, weights: str) -> None:
    """Start `model`, in place, from "imagenet" or a file, or leave it as it is for "none". Raises: UserError."""
    if weights != "none":
        model.trunk.load_state_dict(initial_state(weights, model.size, model.stages), strict=False)


def initial_model(size: int, settings: Settings) -> BreastResNet:
    """A model as training starts with it; its random layers come from torch's generator. Raises: UserError."""
    model = BreastResNet(size, settings.stages, settings.upsample)
    load_weights(model, settings.weights)
    model.freeze(settings.frozen_stages)
    return model
