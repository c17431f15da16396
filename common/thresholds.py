"""Rules that choose a threshold: a sensitivity, a specificity, or a share of images to flag.

A threshold lies midway between two neighbouring probabilities. Every threshold between the two flags the same images.
No image lies on the threshold, so the rounding of another runtime changes no flag.
"""

from dataclasses import dataclass

import numpy as np

RULES = {
    "sensitivity": "largest threshold with a sensitivity of at least {}",
    "specificity": "smallest threshold with a specificity of at least {}",
    "flag-rate": "smallest threshold that flags at most a share of {}",
}


@dataclass(frozen=True)
class Rule:
    """A rule that chooses a threshold. kind: a key of RULES; value: the share, in (0, 1]."""

    kind: str
    value: float

    def threshold(self, labels, probabilities) -> float:
        """Return the threshold, in [0, 1], that the rule chooses on images. labels, probabilities: [n].

        An image is flagged if its probability is at least the threshold.
        Raises: ValueError without an image of the class that the rule needs, or for a value outside (0, 1].
        """
        probabilities, malignant = np.asarray(probabilities, float), np.asarray(labels, bool)
        deciding = {"sensitivity": malignant, "specificity": ~malignant, "flag-rate": np.ones(len(malignant), bool)}
        scores = np.sort(probabilities[deciding[self.kind]])[::-1]  # descending
        if not len(scores) or not 0 < self.value <= 1:
            raise ValueError(f"no threshold with a {self.kind} of {self.value} on {len(scores)} images")
        if self.kind == "sensitivity":
            share = np.arange(1, len(scores) + 1) / len(scores)
            lowest = scores[np.argmax(share >= self.value)]
            return float((lowest + probabilities[probabilities < lowest].max(initial=0)) / 2)
        flagged = np.arange(len(scores) + 1) / len(scores)  # shares of the deciding images, by number of flagged images
        most = 1 - self.value if self.kind == "specificity" else self.value
        first_kept = int(np.flatnonzero(flagged <= most + 1e-12).max())
        if first_kept == len(scores):
            return 0.0  # all images may be flagged
        highest = scores[first_kept]  # the highest probability that must not be flagged
        return float((highest + probabilities[probabilities > highest].min(initial=1)) / 2)

    def describe(self, chosen_on: str) -> str:
        """Return the threshold in words, for files and tables. chosen_on: the images that chose it, in words."""
        return f"{RULES[self.kind].format(self.value)} on {chosen_on}, midway to the next probability"
