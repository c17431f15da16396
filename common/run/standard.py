"""MedMNIST's standard result file, which medmnist.Evaluator.parse_and_evaluate accepts."""

import glob
from pathlib import Path

import numpy as np

from common import metrics
from common.errors import UserError
from common.files import replacing
from common.run import outputs


def result(labels: np.ndarray, probabilities: np.ndarray, size: int, root: Path, split: str, name: str):
    """Return the name and the content of MedMNIST's result file, in which 1 means benign.

    Args: labels, probabilities: [n], of a split of BreastMNIST, 1 for malignant; size: in pixels; name: of the run.
    Raises: UserError if MedMNIST's Evaluator finds another AUC or accuracy.
    """
    import medmnist  # this import takes seconds

    benign = 1 - probabilities.astype(float)
    evaluator = medmnist.Evaluator("breastmnist", split, size=size, root=root)
    theirs, ours = evaluator.evaluate(benign), metrics.summary(labels, probabilities)
    if not np.allclose(theirs, (ours["auc"], ours["accuracy"]), rtol=0, atol=1e-12):
        raise UserError(f"MedMNIST's Evaluator gives {theirs}, not {ours['auc']} and {ours['accuracy']}")
    lines = [f"{i},{probability}\n" for i, probability in enumerate(benign.tolist())]
    return evaluator.get_standard_evaluation_filename(theirs, name), "".join(lines)


def write(path: Path, content: str, split: str, name: str) -> None:
    """Write or replace the result file of a run and split. Raises: UserError, also for a file of the user."""
    outputs.refuse(path.parent, [path.name])
    outputs.record(path.parent, [path.name])
    with replacing(path) as beside:
        beside.write_text(content, encoding="utf-8")
    mine = outputs.listed(path.parent)
    for file in path.parent.glob(f"breastmnist*_{split}_*@{glob.escape(name)}.csv"):
        if file != path and file.name in mine:
            file.unlink()
