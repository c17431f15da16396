"""What training costs on this machine, measured on phantoms, so that a run can be predicted before it is started.

For each number of images: seconds and memory of the whole way to a trained epoch. For each image size: images per
second, the floating-point operations of a training step, counted, and their share of the machine's measured
matrix-multiply peak. For the smallest size: the operators that take the time. Settings are train.py's.
"""

import math
import os
import resource
import time
from dataclasses import dataclass

import common


def parse_args():
    parser = common.cli.Parser(__doc__)
    natural = common.settings.POSITIVE_INT
    sizes = common.settings.one_of(*common.data.SIZES)
    parser.add_argument(
        "--sizes", nargs="+", type=sizes, default=list(common.data.SIZES), metavar="S",
        help="image sizes (default: all four)",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="+", type=natural, default=[500, 5000, 50_000], metavar="N",
        help="numbers of training images, at 28×28 (default: 500 5000 50000)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=natural, default=20, metavar="N", help="training steps to time for each row (default: 20)"
    )
    common.cli.add_machine_flags(parser, device=False)
    common.settings.add_flags(parser, weights="none")  # what a step costs does not depend on where it starts
    return parser.parse_args()


def check_memory(args, settings) -> None:
    """Raises: UserError when the phantoms to time would not fit in the memory of most machines."""
    timed = args.steps * settings.batch_size * max(args.sizes) ** 2
    for flag, size in (("--images", max(args.images) * 28**2), ("--steps times --batch-size", timed)):
        if size > common.data.LARGEST:
            raise common.errors.UserError(f"{flag}: {size / 1e9:.0f} GB of images; choose fewer")


def seconds(function, *args) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def matmul_peak(n: int = 2048) -> float:
    """Best of ten fp32 products of n×n matrices, in floating-point operations per second."""
    import torch

    a, b = torch.rand(2, n, n)
    return 2 * n**3 / min(seconds(torch.mm, a, b) for _ in range(10))


@dataclass
class Bench:
    """A training that can be timed: its state, and images and labels as train_epoch takes them."""

    state: object
    images: object
    labels: object
    settings: object

    def run(self, steps: int) -> None:
        """The first `steps` batches as an epoch."""
        n, weights = steps * self.settings.batch_size, common.loss.class_weights(self.labels, "none")
        common.training.train_epoch(self.state, self.images[:n], self.labels[:n], weights, self.settings)


def prepare(images, labels, settings) -> Bench:
    """A model that has taken its first two steps on the images."""
    import torch

    state = common.training.start(images.shape[-1], 10**6, settings, 0, torch.device("cpu"))
    bench = Bench(state, torch.from_numpy(images), torch.from_numpy(labels), settings)
    bench.run(2)
    return bench


def phantoms(size: int, settings, steps: int) -> Bench:
    """A training with as many phantoms as the steps take."""
    return prepare(*common.phantom.generate(steps * settings.batch_size, size, seed=0), settings)


def count_operations(bench: Bench) -> int:
    """Floating-point operations of one training step, forward and backward, counted call by call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        bench.run(1)
    return counter.get_total_flops()


def size_row(size: int, settings, steps: int, peak: float) -> str:
    """How fast a model of one image size trains, and how much of the machine it uses."""
    bench = phantoms(size, settings, steps)
    step, operations = seconds(bench.run, steps) / steps, count_operations(bench)
    rate = settings.batch_size / step
    gflop = operations / settings.batch_size / 1e9
    return (
        f"{size:>6}{546 / rate:>18.1f}{rate:>11.0f}{gflop:>16.2f}{gflop * rate:>11.0f}{operations / step / peak:>10.0%}"
    )


def operator_rows(bench: Bench, steps: int) -> list[str]:
    """The operators that take most of a training step, and their shares of it, by torch's profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it is talkative
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        bench.run(steps)
    operators = sorted(profiler.key_averages(), key=lambda operator: -operator.self_cpu_time_total)
    total = sum(operator.self_cpu_time_total for operator in operators)
    return [f"{op.self_cpu_time_total / total:>6.0%}  {op.key.removeprefix('aten::')}" for op in operators[:8]]


def count_row(n: int, settings, steps: int) -> str:
    """What n images cost: an epoch (of `steps` steps, extrapolated), a run, the twin search, and all memory so far."""
    images, labels = common.phantom.generate(n, 28, seed=0)
    twins = seconds(common.twins.find_groups, images)
    bench, batches = prepare(images, labels, settings), math.ceil(n / settings.batch_size)
    timed = min(batches, steps)
    epoch = seconds(bench.run, timed) * batches / timed
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{n:>8}{epoch:>11.1f}{settings.epochs * epoch / 60:>11.1f}{twins:>15.1f}{memory:>18.2f}"


def main():
    args = parse_args()
    settings = common.settings.from_args(args)
    check_memory(args, settings)
    common.model.initial_model(args.sizes[0], settings)  # bad --weights fail here, before anything is printed
    common.seed.set_seed(0, args.threads)
    peak = matmul_peak()
    print(f"PHANTOM data, batch {settings.batch_size}, fp32; {args.threads} threads of {common.runs.cpu_name()}")
    print(f"matrix-multiply peak, measured: {peak / 1e9:.0f} GFLOP/s\n")
    print("  images    s/epoch    min/run    twins, seconds    peak memory, GB")
    for n in sorted(args.images):  # before the sizes, which take more memory
        print(count_row(n, settings, args.steps), flush=True)

    print("\n  size    s/epoch of 546   images/s    GFLOP/image    GFLOP/s   of peak")
    for size in args.sizes:
        print(size_row(size, settings, args.steps, peak), flush=True)

    smallest = min(args.sizes)
    print(f"\n  time  operator at {smallest}×{smallest}")
    print(*operator_rows(phantoms(smallest, settings, args.steps), args.steps), sep="\n")


if __name__ == "__main__":
    common.cli.run(main)
