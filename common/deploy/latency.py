"""How fast a model answers, and what a process that only predicts needs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from common.deploy import onnxfile
from common.run.folders import Run

BATCHES = (1, 64)
THREADS = (1, 2)
WARM_UP, FEWEST, SECONDS = 3, 20, 1.5  # calls not counted; calls counted at least, and for how long at least

# Runs in a process of its own that imports numpy and onnxruntime alone: batch 1, as an app predicts.
ONLY_PREDICTS = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
began = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
load = time.perf_counter() - began
images = numpy.random.default_rng(0).integers(0, 256, (20, 700, 1000), numpy.uint8)
for image in images:
    session.run(None, {"image": image[None]})
try:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak = int(status["VmHWM"].split()[0]) * 1024
except OSError:  # no Linux
    peak = None
print(json.dumps({"load_seconds": load, "peak_bytes": peak}))
"""


def timings(call: Callable[[], object]) -> np.ndarray:
    """Seconds of each of many calls, [n], after a warm-up."""
    for _ in range(WARM_UP):
        call()
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < FEWEST or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def summarise(seconds: np.ndarray, batch: int) -> dict:
    """{"p50_ms", "p95_ms", "images_per_second"}, the last from the median."""
    p50, p95 = np.percentile(seconds, (50, 95))
    return {"p50_ms": p50 * 1e3, "p95_ms": p95 * 1e3, "images_per_second": batch / p50}


def latencies(files: dict[str, Path], run: Run, images: np.ndarray) -> list[dict]:
    """A row for each model, batch size and number of threads: every file under onnxruntime, and PyTorch eager.

    Args: files: {name: path}; images: uint8 [64 or more, size, size].
    """
    rows, before = [], torch.get_num_threads()
    for threads in THREADS:
        sessions = {name: onnxfile.open_session(path, threads) for name, path in files.items()}
        torch.set_num_threads(threads)
        for batch in BATCHES:
            calls = {name: partial(session.run, None, {"image": images[:batch]}) for name, session in sessions.items()}
            calls["PyTorch"] = partial(run.probabilities, images[:batch])
            for name, call in calls.items():
                rows.append({"model": name, "threads": threads, "batch": batch} | summarise(timings(call), batch))
    torch.set_num_threads(before)
    return rows


def process(path: Path) -> dict:
    """{"load_seconds", "peak_bytes"} of a process that opens the file and predicts 20 images of 1000×700, one by one,
    on one thread. "peak_bytes" is its largest resident memory, numpy and onnxruntime included; None outside Linux."""
    command = [sys.executable, "-I", "-c", ONLY_PREDICTS, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(files: dict[str, Path], run: Run, images: np.ndarray) -> dict:
    """{"latency": rows, "process": {name: ...}}, the content of "benchmark" in parity.json."""
    return {"latency": latencies(files, run, images), "process": {name: process(path) for name, path in files.items()}}


def text(measured: dict) -> str:
    """Fixed-width tables of what `measure` returns."""
    lines = [f"{'threads':<8}{'batch':>8}{'model':>12}{'p50, ms':>12}{'p95, ms':>12}{'images/s':>12}"]
    for row in measured["latency"]:
        figures = f"{row['p50_ms']:>12.2f}{row['p95_ms']:>12.2f}{row['images_per_second']:>12.0f}"
        lines.append(f"{row['threads']:<8}{row['batch']:>8}{row['model']:>12}{figures}")
    for name, figures in measured["process"].items():
        peak = "n/a" if figures["peak_bytes"] is None else f"{figures['peak_bytes'] / 1e6:.0f} MB"
        lines.append(f"{name}: loads in {figures['load_seconds'] * 1e3:.0f} ms; a process that only predicts: {peak}")
    return "\n".join(lines)
