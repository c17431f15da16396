"""With what a run was made: enough to make it again, or to see why it cannot be."""

import argparse
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.data import Found
from common.model import device_of
from common.settings import Settings
from common.training import precision
from common.weights import weights_md5

PACKAGES = ("numpy", "torch", "torchvision", "pandas", "medmnist", "optuna", "onnx", "onnxscript", "onnxruntime")


def command(*words: str) -> str | None:
    """What a small program prints; None if it is not there or fails."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(words, capture_output=True, cwd=here, timeout=10, encoding="utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def version_of(package: str) -> str | None:
    """The version of an installed package; None of one that is not installed: export.py's are not needed to train."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def provenance(found: Found, threads: int) -> dict:
    """With what a run was made: code, packages, processor, data, command. Nothing here changes from one run of the same
    command to the next; what cannot be known, such as the commit of a copy without git, is None."""
    changes = command("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": command("git", "rev-parse", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
        "command": shlex.join(["python", *sys.argv]),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": threads,
        "data": found.describe(),
    }


def describe(args: argparse.Namespace, settings: Settings, found: Found) -> dict:
    """The "config", with the device that "auto" stands for, and the "provenance" of metrics.json. Raises: UserError."""
    device = device_of(args.device)
    config = vars(args) | {"device": device.type} | settings.as_dict()
    made_with = {
        "weights_md5": weights_md5(settings.weights),
        "seed": args.seed,
        "precision": precision(device, settings.precision),
    }
    return {"config": config, "provenance": provenance(found, args.threads) | made_with}
