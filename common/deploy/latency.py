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
from common.images import Images, of_pixels
from common.run.folders import Run

BATCHES = (1, 64)
THREADS = (1, 2)
WARM_UP, FEWEST, SECONDS = 2, 5, 1.5  # calls not counted; calls counted at least, and for how long at least

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


def measure(files: dict[str, Path], run: Run, images: Images) -> dict:
    """The "benchmark" of parity.json: {"latency": rows, "process": {model: ...}}. A row is of a number of threads, a
    batch size, and a file under onnxruntime or PyTorch eager; images per second are of the median.

    Args: files: {model: path}; images: of which the largest batch takes at most 64.
    """
    before, rows = torch.get_num_threads(), []
    frames = of_pixels(images.pixels, images.table.drop(columns="_file", errors="ignore"))  # none is read again
    for threads in THREADS:
        sessions = {model: onnxfile.open_session(path, threads) for model, path in files.items()}
        torch.set_num_threads(threads)
        for batch in dict.fromkeys(min(batch, len(images)) for batch in BATCHES):
            given = frames[:batch]
            calls = {m: partial(session.run, None, {"image": given.pixels}) for m, session in sessions.items()}
            calls["PyTorch"] = partial(run.answer, given)
            for model, call in calls.items():
                p50, p95 = np.percentile(timings(call), (50, 95))
                row = {"model": model, "threads": threads, "batch": batch}
                rows.append(row | {"p50_ms": p50 * 1e3, "p95_ms": p95 * 1e3, "images_per_second": batch / p50})
    torch.set_num_threads(before)
    return {"latency": rows, "process": {model: process(path) for model, path in files.items()}}


def timings(call: Callable[[], object]) -> list[float]:
    """Seconds of each of many calls, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    seconds: list[float] = []
    while len(seconds) < FEWEST or sum(seconds) < SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def process(path: Path) -> dict:
    """{"load_seconds", "peak_bytes"} of a process that opens the file and predicts 20 images of 1000×700, one by one,
    on one thread. "peak_bytes" is its largest resident memory, numpy and onnxruntime included; None outside Linux."""
    command = [sys.executable, "-I", "-c", ONLY_PREDICTS, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
