"""Seeds for every source of chance in a run."""

import random

import numpy as np
import torch


def set_seed(seed: int, threads: int) -> None:
    """Seed Python, numpy and torch, and fix the thread count and the algorithms.

    The same seed, machine, package versions and thread count then give bit-identical results. The thread count matters,
    because floating-point sums depend on how threads divide the work.

    Args: seed: 0 or above; threads: CPU threads for torch, 1 or above.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)  # on a GPU some layers have no deterministic form
