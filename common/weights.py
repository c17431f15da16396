"""Weights in files: reading them without running code in them, and starting a model from published ones."""

import hashlib
import os
import sys
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path

import torch
import torchvision

from common import download
from common.errors import UserError, one_line, reading, sentence
from common.files import replacing
from common.model import GREY_STD, BreastResNet
from common.settings import Settings

CHANNEL_STD = (0.229, 0.224, 0.225)  # ImageNet's, of red, green and blue
GREY_STEM = (64, 1, 7, 7)  # of filters that take one channel as they are
IMAGENET_URL = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
IMAGENET_SHA256 = "f37072fd"  # how it begins, as in the file's name
WAYS_OUT = "give --weights FILE, a state dict of torchvision's ResNet-18, or --weights none"


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
    with reading(path, f"is not {kind}, or is damaged", way_out):
        check_zip(path)
        with warnings.catch_warnings(action="ignore"):  # of torch, about files that are not its own
            return torch.load(path, map_location="cpu", weights_only=True)


def write_tensors(path: Path, content: dict) -> None:
    """A file of tensors and plain values, which `read_tensors` reads. Raises: UserError."""
    with replacing(path) as beside, open(beside, "wb") as file:  # torch writes the name of a path into the file
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from None


def grey_stem(filters: torch.Tensor) -> torch.Tensor:
    """Colour filters [64, 3, 7, 7] as grey ones [64, 1, 7, 7] with the same response to a grey image: their sum, each
    colour rescaled from its own standard deviation to the grey one's."""
    scale = GREY_STD / filters.new_tensor(CHANNEL_STD)
    return (filters * scale[:, None, None]).sum(1, keepdim=True)


def fetch_imagenet() -> Path:
    """torchvision's ImageNet weights in torch's cache, downloaded if absent, their hash checked. Raises: UserError."""
    path = Path(torch.hub.get_dir(), "checkpoints", IMAGENET_URL.rpartition("/")[2])
    try:
        if not path.exists():
            print(f"Downloading: {IMAGENET_URL} to {path}", file=sys.stderr)
            path.parent.mkdir(parents=True, exist_ok=True)
            with download.limited(IMAGENET_URL):
                torch.hub.download_url_to_file(IMAGENET_URL, str(path), IMAGENET_SHA256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(
            f"{path}: the ImageNet weights cannot be downloaded ({one_line(str(error))}). Save {IMAGENET_URL} there, "
            f"or {WAYS_OUT}."
        ) from None
    return path


def unwrapped(state) -> dict[str, torch.Tensor]:
    """A state dict without what training scripts wrap around it: an entry "state_dict", "model" or "model_state_dict",
    and the prefix "module." of DataParallel. Raises: ValueError on anything else."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError("no state dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def read_weights(weights: str) -> dict:
    """The trunk in a state dict of torchvision's ResNet-18, all of it or a part; `fc`, of other classes, is left out.

    Args: weights: "imagenet" (downloaded once), or the path of a file.
    Raises: UserError; in a file, on what is not torchvision's by name or shape, and on values that are no numbers.
    """
    file, way_out = (fetch_imagenet(), f"delete it, or {WAYS_OUT}") if weights == "imagenet" else (weights, WAYS_OUT)
    state = read_tensors(file, "a file of plain tensors saved by torch", way_out)
    with torch.device("meta"):  # shapes alone
        layers = torchvision.models.resnet18().state_dict()
    with reading(weights, "is not a state dict of torchvision's ResNet-18", WAYS_OUT):
        trunk = {name: tensor for name, tensor in unwrapped(state).items() if not name.startswith("fc.")}
        for name, tensor in trunk.items():
            one_channel = name == "conv1.weight" and tensor.shape == GREY_STEM
            if name not in layers or tensor.shape != layers[name].shape and not one_channel:
                what = f"{name!r} of shape {list(tensor.shape)} is no layer of torchvision's ResNet-18"
                raise UserError(f"{weights}: {what}. {sentence(WAYS_OUT)}")
            if tensor.layout != torch.strided or not tensor.isfinite().all():
                raise UserError(f"{weights}: {name!r} holds values that are no numbers. {sentence(WAYS_OUT)}")
    return trunk


@lru_cache
def initial_state(weights: str, size: int, stages: int) -> dict:
    """Of "imagenet" or a file, the layers of a BreastResNet, grey stem included; what stays random is named in a line.
    Raises: UserError."""
    trunk = read_weights(weights)
    with torch.device("meta"):
        own = BreastResNet(size, stages).trunk.state_dict()
    if not trunk.keys() & own.keys():
        raise UserError(f"{weights}: holds no layer of the model. {sentence(WAYS_OUT)}")
    absent = {name.split(".")[0] for name in own if name not in trunk and not name.endswith("num_batches_tracked")}
    print(f"weights: {weights}; the layers {', '.join(sorted(absent))} start at random", file=sys.stderr)
    if "conv1.weight" in trunk and trunk["conv1.weight"].shape != GREY_STEM:
        trunk["conv1.weight"] = grey_stem(trunk["conv1.weight"])
    return {name: tensor for name, tensor in trunk.items() if name in own}


def initial_model(size: int, settings: Settings, finds: bool = False) -> BreastResNet:
    """A model as training starts with it; its random layers come from torch's generator. finds: as `BreastResNet`.
    Raises: UserError."""
    model = BreastResNet(size, settings.stages, finds)
    if settings.weights != "none":
        model.trunk.load_state_dict(initial_state(settings.weights, size, model.stages), strict=False)
    return model


@lru_cache
def weights_md5(weights: str) -> str | None:
    """MD5 of a file of weights as it was when first asked for, which says more than its name; None for "imagenet" and
    "none". Raises: UserError."""
    if weights in ("imagenet", "none"):
        return None
    with reading(weights, way_out=WAYS_OUT), open(weights, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
