"""Read weights from files without running code in the files, and start a model from published weights."""

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

CHANNEL_STD = (0.229, 0.224, 0.225)  # of red, green and blue in ImageNet
GREY_STEM = (64, 1, 7, 7)  # shape of filters for one channel, which are used unchanged
IMAGENET_URL = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
IMAGENET_SHA256 = "f37072fd"  # the first digits, as in the name of the file
WAYS_OUT = "give --weights FILE, a state dict of torchvision's ResNet-18, or --weights none"


def check_zip(path: str | Path) -> None:
    """Check the checksums of a zip file of torch, because torch.load does not.

    Raises: ValueError if a checksum is wrong, or if the members unpack to more than the file, which is not compressed.
    """
    if not zipfile.is_zipfile(path):  # files of an old torch are checked during reading
        return
    with zipfile.ZipFile(path) as members:
        if sum(member.file_size for member in members.infolist()) > os.path.getsize(path) or members.testzip():
            raise ValueError("damaged")


def read_tensors(path: str | Path, kind: str, way_out: str):
    """Read tensors and plain values that torch saved. No code in the file runs, because of weights_only.

    Args: kind, way_out: words for the error. Raises: UserError.
    """
    with reading(path, f"is not {kind}, or is damaged", way_out):
        check_zip(path)
        with warnings.catch_warnings(action="ignore"):  # torch warns about files of other programs
            return torch.load(path, map_location="cpu", weights_only=True)


def write_tensors(path: Path, content: dict) -> None:
    """Write a file of tensors and plain values for `read_tensors`. Raises: UserError."""
    with replacing(path) as beside, open(beside, "wb") as file:  # given a path, torch writes the name into the file
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from None


def grey_stem(filters: torch.Tensor) -> torch.Tensor:
    """Convert colour filters [64, 3, 7, 7] to grey filters [64, 1, 7, 7] with the same response to a grey image.

    A grey filter is the sum over the colours, each rescaled from its standard deviation to that of grey.
    """
    scale = GREY_STD / filters.new_tensor(CHANNEL_STD)
    return (filters * scale[:, None, None]).sum(1, keepdim=True)


def fetch_imagenet() -> Path:
    """Return the path of torchvision's ImageNet weights in the cache of torch. Raises: UserError.

    If the file is absent, download the file and check its hash.
    """
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
    """Return a state dict without the wrapping of training scripts. Raises: ValueError if there is no state dict.

    The wrapping is an entry "state_dict", "model_state_dict" or "model", and the prefix "module." of DataParallel.
    """
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError("no state dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def read_weights(weights: str) -> dict:
    """Read the layers of torchvision's ResNet-18, or some of them, from a state dict, without `fc` (other classes).

    Args: weights: "imagenet" (downloaded once), or the path of a file.
    Raises: UserError, for example on names or shapes that are not torchvision's, and on values that are not finite.
    """
    file, way_out = (fetch_imagenet(), f"delete it, or {WAYS_OUT}") if weights == "imagenet" else (weights, WAYS_OUT)
    state = read_tensors(file, "a file of plain tensors saved by torch", way_out)
    with torch.device("meta"):  # only shapes, no values
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
    """Return the layers of a BreastResNet that weights give, with a grey stem. Raises: UserError.

    A line on stderr names the layers that stay random. Args: weights: as for `read_weights`; stages: 2 to 4.
    """
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
    """Return the model with which training starts. Random layers come from the global generator of torch.

    Args: size, finds: as for `BreastResNet`. Raises: UserError.
    """
    model = BreastResNet(size, settings.stages, finds)
    if settings.weights != "none":
        model.trunk.load_state_dict(initial_state(settings.weights, size, model.stages), strict=False)
    return model


@lru_cache
def weights_md5(weights: str) -> str | None:
    """Return the MD5 of a file of weights at the first call; None for "imagenet" and "none". Raises: UserError.

    Runs keep the MD5, because the name of a file does not say what the file holds.
    """
    if weights in ("imagenet", "none"):
        return None
    with reading(weights, way_out=WAYS_OUT), open(weights, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
