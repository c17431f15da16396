"""Provenance of a run: what is needed to make the run again, or to see why that is impossible."""

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

PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "pillow",
    "pandas",
    "medmnist",
    "optuna",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def command(*words: str) -> str | None:
    """Return what a program prints; None if the program is absent, fails or takes more than 10 seconds."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(words, capture_output=True, cwd=here, timeout=10, encoding="utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None. Training does not need the packages of export.py."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the name of the processor, or the machine type if the system does not tell the name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def provenance(found: Found, threads: int) -> dict:
    """Return what a run was made with: code, packages, processor, threads, data and command.

    All runs of a command on a machine have the same values. Unknown values, such as the commit without git, are None.
    """
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
    """Return "config" and "provenance" of metrics.json. "config" names the device, not "auto". Raises: UserError."""
    device = device_of(args.device)
    config = vars(args) | {"device": device.type} | settings.as_dict()
    made_with = {
        "weights_md5": weights_md5(settings.weights),
        "seed": args.seed,
        "precision": precision(device, settings.precision),
    }
    return {"config": config, "provenance": provenance(found, args.threads) | made_with}
