"""Folds of a cross-validation, stratified by class. A group of images is never divided."""

import numpy as np

from common.errors import UserError


def assign_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Assign groups to folds so that all folds hold nearly the same number of images of each class.

    The method is greedy, as in scikit-learn's StratifiedGroupKFold. It takes the groups from large to small, in random
    order among equals, and puts each group into the fold where the class counts stay most even. If every image is a
    group, the result is plain stratified k-fold.

    Args:
        labels: [n] of 0 or 1.
        groups: [n], the same value for images that must share a fold.
        folds: number of folds, 2 or above.

    Returns: int [n], the fold of each image, 0 to folds - 1.
    Raises: UserError when a class has fewer groups than there are folds.
    """
    names, member_of = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(member_of[labels == c], minlength=len(names)) for c in (0, 1)], 1)  # [groups, 2]
    if (fewest := int((counts > 0).sum(0).min())) < folds:
        raise UserError(
            f"{folds} folds need {folds} or more groups of each class (a group is one patient or near-duplicates), but "
            f"there are {fewest}. Use fewer folds."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    filled = np.zeros((folds, 2))
    fold_of_group = np.empty(len(names), int)
    for g in order:
        cost = (((filled + counts[g]) ** 2 - filled**2) / counts.sum(0)).sum(1)  # growth of the sum of squares
        fold_of_group[g] = fold = int(np.argmin(cost))
        filled[fold] += counts[g]
    return fold_of_group[member_of]
