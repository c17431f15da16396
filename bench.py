"""What training costs on this machine, measured on phantoms, so that a run can be predicted before it is started.

For each number of images: seconds and memory of the whole way to a trained epoch. For each image size: images per
second, the floating-point operations of a training step, counted, and their share of the machine's measured
matrix-multiply peak. For the smallest size: the operators that take the time. Settings are train.py's.
"""

import math
import os
import resource
import time
import timeit
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from common import duplicates, npzfile, phantom
from common.data import Split
from common.errors import UserError
from common.run import flags
from common.run.provenance import cpu_name
from common.seed import set_seed
from common.settings import POSITIVE_INT, Settings, one_of
from common.training import autocast, fit, precision
from common.weights import initial_model

CPU = torch.device("cpu")
OPERATORS = 8  # that take the most time


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--sizes", one_of(*npzfile.SIZES), "image sizes", list(npzfile.SIZES), "all four", nargs="+")
    counts = "numbers of training images, at 28×28"
    flags.add(parser, "--images", POSITIVE_INT, counts, [500, 5000, 50_000], "500 5000 50000", nargs="+")
    flags.add(parser, "--steps", POSITIVE_INT, "training steps to time for each row", 20)
    flags.add_machine_flags(parser, device=False)
    flags.add_settings_flags(parser, weights="none")  # what a step costs does not depend on where it starts
    return parser.parse_args()


def check_memory(args, settings: Settings) -> None:
    """Raises: UserError when the phantoms to time would not fit in the memory of most machines."""
    timed = args.steps * settings.batch_size * max(args.sizes) ** 2
    for flag, size in (("--images", max(args.images) * 28**2), ("--steps times --batch-size", timed)):
        if size > npzfile.LARGEST:
            raise UserError(f"{flag}: {size / 1e9:.0f} GB of images; choose fewer")


def phantoms(n: int, size: int) -> Split:
    return Split.of("train", *phantom.generate(n, size, seed=0))


def epoch_seconds(images: Split, settings: Settings, epochs: int = 2) -> float:
    """Seconds of the last of some epochs; in the first, memory is taken and kernels are chosen."""
    return fit(images, None, replace(settings, epochs=epochs), 0, CPU, name="bench").history[-1]["seconds"]


def matmul_peak(settings: Settings, n: int = 2048) -> float:
    """Best of ten products of n×n matrices in the precision of training, in floating-point operations per second."""
    a, b = torch.rand(2, n, n)
    with autocast(CPU, settings.precision):
        return 2 * n**3 / min(timeit.repeat(lambda: torch.mm(a, b), repeat=10, number=1))


def count_row(n: int, settings: Settings, steps: int) -> str:
    """What n images cost: an epoch (of `steps` steps, extrapolated), a run, the twin search, and all memory so far."""
    images = phantoms(n, 28)
    began = time.perf_counter()
    duplicates.find_groups(images.images)
    searched = time.perf_counter() - began
    timed = images[: steps * settings.batch_size]
    all_steps, timed_steps = (math.ceil(count / settings.batch_size) for count in (n, len(timed)))
    epoch = epoch_seconds(timed, settings) * all_steps / timed_steps
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{n:>8}{epoch:>11.1f}{settings.epochs * epoch / 60:>11.1f}{searched:>15.1f}{memory:>18.2f}"


def size_row(size: int, settings: Settings, steps: int, peak: float) -> str:
    """How fast a model of one image size trains, and how much of the machine it uses."""
    images = phantoms(steps * settings.batch_size, size)
    rate = len(images) / epoch_seconds(images, settings)
    with FlopCounterMode(display=False) as counter:
        epoch_seconds(images[: settings.batch_size], settings, epochs=1)
    operations = counter.get_total_flops() / settings.batch_size
    costs = f"{size:>6}{546 / rate:>18.1f}{rate:>11.0f}{operations / 1e9:>16.2f}{operations * rate / 1e9:>11.0f}"
    return costs + f"{operations * rate / peak:>10.0%}"


def operator_rows(size: int, settings: Settings, steps: int) -> list[str]:
    """The operators that take most of a training run, and their shares of it, by torch's profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it is talkative
    images = phantoms(steps * settings.batch_size, size)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        epoch_seconds(images, settings, epochs=10)  # beside them, the start is small
    operators = sorted(profiler.key_averages(), key=lambda operator: -operator.self_cpu_time_total)
    total = sum(operator.self_cpu_time_total for operator in operators)
    return [f"{op.self_cpu_time_total / total:>6.0%}  {op.key.removeprefix('aten::')}" for op in operators[:OPERATORS]]


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    check_memory(args, settings)
    initial_model(args.sizes[0], settings)  # bad --weights fail here, before anything is printed
    set_seed(0, args.threads)
    peak, kind = matmul_peak(settings), precision(CPU, settings.precision)
    threads = f"{args.threads} thread{'s' * (args.threads != 1)} of {cpu_name()}"
    print(f"PHANTOM data, batch {settings.batch_size}, {kind}; {threads}")
    print(f"matrix-multiply peak in {kind}, measured: {peak / 1e9:.0f} GFLOP/s\n")
    print("  images    s/epoch    min/run    twins, seconds    peak memory, GB")
    for n in sorted(args.images):  # before the sizes, which take more memory
        print(count_row(n, settings, args.steps), flush=True)

    print("\n  size    s/epoch of 546   images/s    GFLOP/image    GFLOP/s   of peak")
    for size in args.sizes:
        print(size_row(size, settings, args.steps, peak), flush=True)

    smallest = min(args.sizes)
    print(f"\n  time  operator at {smallest}×{smallest}")
    print(*operator_rows(smallest, settings, args.steps), sep="\n")


if __name__ == "__main__":
    flags.run(main)
