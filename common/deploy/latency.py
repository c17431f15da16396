"""Measure how fast models answer, and the load time and memory of a process that only predicts."""

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
WARM_UP, FEWEST, SECONDS = 2, 5, 1.5  # calls not counted; lowest number and lowest duration of counted calls

# A separate process runs this script. The process imports only numpy and onnxruntime, with batch 1, as an app predicts.
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
    """Return the "benchmark" of parity.json: {"latency": rows, "process": {model: result of `process`}}.

    A row has "model", "threads", "batch", "p50_ms", "p95_ms" and "images_per_second" (from the median). A model is a
    file in onnxruntime, or PyTorch eager.

    Args: files: {model: path}; images: at least one, of the run; a batch takes at most 64.
    """
    before, rows = torch.get_num_threads(), []
    frames = of_pixels(images.pixels, images.table.drop(columns="_file", errors="ignore"))  # no file is read again
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
    """Return the seconds of each call, after WARM_UP calls: FEWEST calls or more, SECONDS or longer in total."""
    for _ in range(WARM_UP):
        call()
    seconds: list[float] = []
    while len(seconds) < FEWEST or sum(seconds) < SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def process(path: Path) -> dict:
    """Return {"load_seconds", "peak_bytes"} of a process that opens a file and predicts 20 images of 1000×700.

    The process predicts one image at a time on one thread. "peak_bytes" is the largest resident memory of the process,
    with numpy and onnxruntime; None outside Linux.
    """
    command = [sys.executable, "-I", "-c", ONLY_PREDICTS, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
