"""Compare measures of typicality on the features of a shipped file of the view lesion, as of commit 736fd51.

    python -m results.trial.typicality models/breast_ultrasound.onnx busi.csv breast busbra.csv

writes results/typicality.csv: the share of pictures that each measure marks, of kinds that are not breast ultrasound
(drawn with two seeds), of BreastMNIST's test images, and of each hospital by a fit to the other two.
"""

import sys

import numpy as np
import onnx
import onnxruntime

from common import data, files
from common.deploy import typicality
from common.preparation import frames
from results import limits, log

OUTPUTS = ["window_features", "frame_features", "frame_heat"]
KINDS = ("blurred noise", "text", *limits.SAMPLES)
FEATURES = {
    "window and frame": ("w", "f"), "window": ("w",), "frame": ("f",), "frame and heat": ("f", "mean", "std"),
    "frame, heat and its maximum": ("f", "mean", "std", "max"), "window, frame and heat": ("w", "f", "mean", "std"),
}  # fmt: skip


def open_inside(path: str) -> onnxruntime.InferenceSession:
    model = onnx.load(path)
    for name in OUTPUTS:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return onnxruntime.InferenceSession(model.SerializeToString())


def features(session, images) -> dict[str, np.ndarray]:
    rows = [session.run(OUTPUTS, {"image": np.ascontiguousarray(image)[None]}) for image in images]
    window, frame, heat = (np.concatenate(values) for values in zip(*rows))
    of_heat = {"mean": np.mean, "std": np.std, "max": np.max}
    return {"w": window, "f": frame} | {name: np.log(f(heat, (1, 2)) + 0.05)[:, None] for name, f in of_heat.items()}


def drawn(seed: int) -> dict[str, list]:
    g, shown = np.random.default_rng(seed), {}
    for _ in range(limits.N):
        for kind, picture in limits.drawn(g).items():
            if kind in KINDS:
                shown.setdefault(kind, []).append(picture)
    for kind, patterns in limits.SAMPLES.items():
        found = list(limits.samples(patterns))
        shown[kind] = [limits.cut(found[g.integers(len(found))], g) for _ in range(limits.N)]
    return {kind: [np.clip(p, 0, 255).astype(np.uint8) for p in pictures] for kind, pictures in shown.items()}


def main():
    path, *sets = sys.argv[1:]
    session = open_inside(path)
    train = data.load(data.find(sets, None, 128, undivided="train", view="lesion"), "train", "val", optional=["val"])
    known, hospitals, groups = features(session, frames(train)), train.hospitals, train.groups
    test = data.load(data.find(sets[:1], None, 128, view="lesion"), "test")
    shown = {"test, frames": features(session, frames(test))}
    shown |= {f"{kind}, seed {s}": features(session, images) for s in (0, 1) for kind, images in drawn(s).items()}
    rows = []
    for name, parts in FEATURES.items():
        for nearest in (False, True):
            of = hospitals if nearest else np.zeros(len(train))
            join = lambda values: np.concatenate([values[part] for part in parts], 1).astype(np.float32)  # noqa: E731
            marked = lambda fitted, values: f"{np.mean(fitted.p_values(join(values)) < 0.01):.4f}"  # noqa: E731
            fitted = typicality.fit(join(known), groups, of)
            row = {"features": name, "distance from": "nearest hospital" if nearest else "all hospitals together"}
            row |= {kind: marked(fitted, values) for kind, values in shown.items()}
            for left in np.unique(hospitals):
                others = hospitals != left
                fitted = typicality.fit(join(known)[others], groups[others], of[others])
                row[f"{left}, not seen"] = marked(fitted, {part: known[part][~others] for part in parts})
            rows.append(row)
    files.write_csv(log.FOLDER / "typicality.csv", rows)


if __name__ == "__main__":
    main()
