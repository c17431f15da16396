"""Every metric of a run or an .onnx file on one split, with intervals, figures and a report to open in a browser."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from common import comparison, data, files, metrics, origin, scoring
from common.calibration import ELSEWHERE, LEFT_OUT, operating_point, threshold_rule
from common.deploy import onnxfile
from common.errors import UserError
from common.model import device_of
from common.run import flags, folders, outputs, provenance, standard
from common.seed import set_seed
from common.settings import Kind, number, one_of
from common.show import cases, figures, page, tables

FIGURES = ("roc", "precision_recall", "reliability", "scores", "confusion", "evidence", "folds", "comparison")
FILES = [f"{figure}_{{}}.png" for figure in FIGURES]
FILES += ["evaluation_{}.json", "predictions_{}.csv", "report_{}.html", "report.html"]


def parse_args():
    parser = flags.Parser(__doc__)
    what = "a folder of train.py or crossval.py, or a file of export.py"
    parser.add_argument("model", metavar="RUN_OR_ONNX", type=flags.not_empty, help=what)
    whole = "test; of image files that are not the model's own, all"
    flags.add(parser, "--split", one_of(*data.SPLITS, "all"), "the images to predict", shown=whole)
    flags.add(parser, "--bootstrap", number(int, 100, 100_000), "resamples behind each 95 %% interval", 2000)
    against = "compare with another run, .onnx or predictions.csv on the same images"
    flags.add(parser, "--against", Kind(str, "OTHER"), against, shown="none")
    point = f"choose the operating point anew and store it: {threshold_rule('this', 'the held-out images')}"
    flags.add(parser, "--sensitivity", flags.INNER_SHARE, point, shown="keep the stored one")
    out = "the results go into a folder in this one, called like the run or the .onnx file"
    flags.add(parser, "--out", flags.FOLDER, out, shown="where the run or the .onnx file lies")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser)
    return parser.parse_args()


def open_model(name: str, args):
    """A run folder or an .onnx file; both have probabilities(), evidence(), calibration, held_out, data, path."""
    return onnxfile.load(name, args.threads) if name.endswith(".onnx") else folders.load(name, device_of(args.device))


def name_of(path) -> str:
    """What a run, an .onnx or a predictions.csv is called: its name without those endings."""
    path = Path(path).resolve()
    return path.stem if path.suffix in (".onnx", ".csv") else path.name


def folder_of(model) -> Path:
    """The run folder, or the one around an .onnx."""
    return model.path if model.path.is_dir() else model.path.parent


def is_own(model, source: data.Source) -> bool:
    """Whether the data are what the model was made with."""
    return model.data["md5"] == source.md5 or source.kept == folder_of(model) / folders.IMAGES


def stored_metrics(model) -> dict:
    """The metrics.json of a run; {} of an .onnx file."""
    return folders.read_metrics(model.path) if isinstance(model, folders.Run) else {}


def choose_operating_point(model, sensitivity: float):
    """The run with another operating point, chosen on its own held-out predictions. Raises: UserError without these."""
    if not isinstance(model, folders.Run):
        raise UserError("--sensitivity: an .onnx file keeps no held-out predictions; give the run folder")
    if model.calibration.fitted_on == LEFT_OUT:
        raise UserError("--sensitivity: chosen for each hospital by itself; run crossval.py with it again")
    path = model.path / "predictions.csv"
    labels, probabilities = folders.columns(folders.calibrating_rows(folders.read_predictions(path)))
    if not labels.any():
        raise UserError(f"{path}: holds no malignant image that was held out; train the run again")
    threshold = operating_point(labels, probabilities, sensitivity)
    rule = threshold_rule(sensitivity, model.calibration.fitted_on)
    return replace(model, calibration=replace(model.calibration, threshold=threshold, threshold_rule=rule))


def store_operating_point(run: folders.Run) -> None:
    """Labelled by the run's own data, whatever it is evaluated on."""
    files.write_json(run.path / "calibration.json", asdict(run.calibration), data.notice(run.data))
    print("the new operating point is stored; metrics.json and earlier exports keep the old one", file=sys.stderr)


@dataclass(frozen=True)
class Evaluated:
    """A model's predictions of a split. out_of_fold: they are those of cross-validation, each by members that have not
    seen the image; own: the data are the model's own; seen: `scoring.count_seen` where they are not, if it can be told;
    unlike: how many images an .onnx file marks as unlike its training images, if it can."""

    model: folders.Run | onnxfile.OnnxModel
    source: data.Source
    name: str
    scored: scoring.Scored
    out_of_fold: bool
    own: bool
    seen: dict[str, int] | None
    unlike: dict | None

    @property
    def label(self) -> str:
        """What to call the images; an .onnx file gets image files as they are, as an app would give them."""
        whole = isinstance(self.model, onnxfile.OnnxModel) and self.source.of_files
        return f"{self.source.called} at full size" if whole else self.source.label

    def notes(self, scores: dict) -> list[str]:
        """What a reader must know. scores: `scoring.evaluate_splits` of these predictions."""
        unlike = "Unlike the training images, with a typicality below {threshold:g}: {marked} of {n}."
        said = [unlike.format(n=len(self.scored.split), **self.unlike)] if self.unlike else []
        said += scoring.none_clean({self.name: self.scored})
        if self.out_of_fold:
            return said
        return said + (self.notes_at_home() if self.own else self.notes_elsewhere(scores))

    def notes_at_home(self) -> list[str]:
        """Of the model's own data."""
        said, trained_on, flatter = [], self.model.data["trained_on"], "these figures flatter it."
        if self.name in (*trained_on, "all"):
            said.append(f"The model was trained on {self.name}: {flatter}")
        elif self.name == self.model.calibration.fitted_on:
            chosen = "temperature, threshold and, unless --patience was 0, epoch"
            said.append(f"The model's {chosen} were chosen on {self.name}: {flatter}")
        if "also" in trained_on and not self.source.also:
            said.append("Not all that it was trained on is here: which of these images are clean cannot be told.")
        return said

    def notes_elsewhere(self, scores: dict) -> list[str]:
        """Of other data: what the model has seen of them, and what it promised."""
        said = ["The model's training images are not here: how many of these it has seen cannot be told."]
        if self.seen:
            counts = "trained on {trained_on}, on near-duplicates of {near_duplicates} more, and has not seen {unseen}"
            flatter = ": the figures of all of them flatter it" if self.seen["trained_on"] else ""
            said = [f"Of these {len(self.scored.split)} images the model was {counts.format(**self.seen)}{flatter}."]
        if phantoms := data.notice(self.model.data):
            said.append(f"The model was trained on {phantoms}.")
        promised, here = self.model.held_out, scores["operating_point"]["splits"][self.name]
        if promised:
            said.append(f"Promised at this threshold, {tables.promise(promised)}; kept here: {tables.promise(here)}.")
            if self.model.calibration.fitted_on == ELSEWHERE.format(called := self.source.called):
                said.append(f"Images called {called} chose it: if these are they, the promise is kept by construction.")
        return said


def predict(model, source: data.Source, split: data.Split, name: str) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """P(malignant) of a split; which images an .onnx file marks as unlike its training images, None where it cannot
    tell; and whether out-of-fold: so an ensemble predicts the images that it was trained on. An .onnx file gets image
    files at their full size, as an app would give them."""
    if isinstance(model, onnxfile.OnnxModel):
        outputs = ["probability"] + ["typicality"] * model.gives("typicality")
        paths = [source.folder / row["image"] for row in split.rows] if source.of_files else []
        found = model.run_files(outputs, paths) if paths else model.run(outputs, split.images)
        return found[0], model.unlike(found[1]) if found[1:] else None, False
    if model.data["md5"] == source.md5 and name in model.data["trained_on"]:
        rows = folders.read_predictions(model.path / "predictions.csv")
        unseen = [row for row in rows if row["split"] == name and row["out_of_fold"]]
        if len(unseen) == len(split):
            return folders.columns(unseen)[1], None, True
    return model.probabilities(split.images), None, False


def evaluate(model, source: data.Source, name: str, root: str | None, also: Sequence[str] = ()) -> Evaluated:
    """Predict a split, and set apart its images that share no group with what may have been trained on. also: where the
    other hospitals that the model was trained on lie now."""
    own, fitted = is_own(model, source), model.data["trained_on"]
    (split,) = data.load(source, name)
    probabilities, marked, out_of_fold = predict(model, source, split, name)
    seen, subsets = None, {}
    if own:
        earlier = data.SPLITS[: data.SPLITS.index(name)] if name != "all" else ()
        others = data.load(source, *earlier, *data.further(source))
        # without some hospital that it was trained on, near-duplicates of its images cannot be told
        apart = bool(source.also or "also" not in fitted) and not out_of_fold
        if name == "test" and stored_metrics(model).get("config", {}).get("drop_test_twins"):
            apart = False  # nothing was trained on that has a near-duplicate in test
    else:
        hospitals = model.data.get("also", [])  # of which these may be one
        also = also or [source.name if other["md5"] == source.md5 else other["name"] for other in hospitals]
        kept = folders.kept_images(folder_of(model))
        trained = origin.load_again(model.data, root, fitted, kept, also)
        seen = scoring.count_seen(split, trained) if trained else None
        chose = origin.load_again(model.data, root, list(dict.fromkeys([*fitted, "val"])), kept, also)
        others, apart = [chose] if chose else [], True
    groups, clean = scoring.groups_beside(split, *others)
    if others and apart and (own or not clean.all()):
        subsets["clean"] = clean
    if marked is not None and marked.any():
        subsets |= {"typical": ~marked, "unlike": marked}
    unlike = None if marked is None else {"threshold": model.typicality_threshold, "marked": int(marked.sum())}
    scored = scoring.Scored(split, probabilities, groups, subsets)
    return Evaluated(model, source, name, scored, out_of_fold, own, seen, unlike)


def predict_other(evaluated: Evaluated, args) -> np.ndarray:
    """P(malignant) by what --against names; a model of another input size gets the images of its size.
    Raises: UserError when its predictions are of other images."""
    source, name, ours = evaluated.source, evaluated.name, evaluated.scored
    if not args.against.endswith(".csv"):
        model = open_model(args.against, args)
        if model.data["size"] != source.size:
            again = source.describe() | {"size": model.data["size"]}
            source = origin.find_again(again, None, args.data_root, None, None, source.kept)
        (split,) = data.load(source, name)
        return predict(model, source, split, name)[0]
    rows = [row for row in folders.read_predictions(Path(args.against)) if row["split"] == name]
    rows.sort(key=lambda row: row["index"])
    images = [(int(label), row.get("image")) for label, row in zip(ours.labels, ours.split.rows)]
    if [(row["label"], row["image"]) for row in rows] != images:
        raise UserError(f"--against {args.against}: its predictions are not of the same images")
    return folders.columns(rows)[1]


def draw(evaluated: Evaluated, counts: np.ndarray) -> dict:
    """The figures of the scores, {file stem: (what it shows, Figure)}. counts: of `intervals.resample_counts`."""
    model, scored = evaluated.model, evaluated.scored
    shown = scored.labels, scored.probabilities
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    title = f"{evaluated.label}, {evaluated.name}{', out-of-fold' if evaluated.out_of_fold else ''}"
    drawn = {
        "roc": ("ROC curve", figures.roc(*shown, counts, thresholds, title)),
        "precision_recall": ("Precision-recall curve", figures.precision_recall(*shown, counts, thresholds, title)),
        "reliability": ("Reliability diagram", figures.reliability(*shown, title)),
        "scores": ("Scores by class", figures.score_histogram(*shown, thresholds, title)),
        "confusion": ("Confusion matrices", figures.confusion(*shown, thresholds, title)),
    }
    if isinstance(model, onnxfile.OnnxModel) and not model.gives("evidence"):
        print(f"note: {model.path} is an earlier export, which gives no evidence: no sheet of it", file=sys.stderr)
    elif not evaluated.out_of_fold:
        drawn["evidence"] = "Evidence", cases.sheet(model, scored.split.images, *shown, title)
    stored = stored_metrics(model)
    if (folds := stored.get("folds")) and evaluated.own:
        title = f"{evaluated.source.label}, {len(folds)} folds"
        drawn["folds"] = "Folds", figures.fold_overview(folds, stored["splits"]["out_of_fold"], title)
    return drawn


def save(out: Path, evaluated: Evaluated, scores: dict, drawn: dict, notes: list[str], threads: int) -> Path:
    """Write evaluation_<split>.json, the figures, the predictions of image files, and the report, whose path is
    returned."""
    split, source, called = evaluated.name, evaluated.source, evaluated.model.path.resolve().name
    predictions = "out-of-fold predictions" if evaluated.out_of_fold else "predictions of the model"
    head = {"model": called, "split": split, "predictions": predictions, "images": evaluated.label}
    seen = {} if evaluated.own else {"seen": evaluated.seen}
    made = {"unlike_training": evaluated.unlike, "provenance": provenance.provenance(source, threads)}
    files.write_json(out / f"evaluation_{split}.json", head | seen | made | scores, source.notice)
    if source.of_files:
        rows = folders.prediction_rows(evaluated.scored.split, evaluated.scored.probabilities)
        files.write_csv(out / f"predictions_{split}.csv", rows, source.notice)
    pictures = {}
    for stem, (what, figure) in drawn.items():
        pictures[what] = out / f"{stem}_{split}.png"
        figures.save(figure, pictures[what])
    path = out / ("report.html" if split == "test" else f"report_{split}.html")
    page.write_report(path, called, f"{evaluated.label}: {predictions} of {called}", split, scores, pictures, notes)
    return path


def report(model, source: data.Source, split: str, out: Path, args) -> list[str]:
    """Evaluate, and write the results: the lines to print."""
    name, seed = name_of(model.path), source.seed if args.seed is None else args.seed
    evaluated = evaluate(model, source, split, args.data_root, args.also)
    shown = evaluated.scored.labels, evaluated.scored.probabilities
    counts = evaluated.scored.resample_counts(args.bootstrap, seed)
    other = predict_other(evaluated, args) if args.against else None
    official = source.name == "breastmnist" and split != "all"
    result = standard.result(*shown, source, split, name) if official else None
    scores = scoring.evaluate_splits({split: evaluated.scored}, model.calibration, args.bootstrap, seed)
    drawn = draw(evaluated, counts)
    notes = evaluated.notes(scores)
    lines = [tables.scores_text(scores, evaluated.label), *notes]
    if other is not None:
        scores["comparison"] = compared = comparison.compare(*shown, other, counts, (name, args.against))
        names = name, name_of(args.against)
        drawn["comparison"] = "Comparison", figures.comparison(compared["differences"], *names, evaluated.label)
        lines.append(compared["conclusion"])
    if args.sensitivity is not None:
        store_operating_point(model)
    written = save(out, evaluated, scores, drawn, notes, args.threads)
    if result:
        standard.write(out / result[0], result[1], split, name)
        lines.append(f"MedMNIST's standard result file: {out / result[0]}")
    return [*lines, f"figures, evaluation_{split}.json and {written.name}: {out}/"]


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    given = args.data, args.data_root, args.size, args.seed, folders.kept_images(folder_of(model)), args.also
    source = origin.find_again(model.data, *given, another="warning" if args.data is None else "note")
    if args.sensitivity is not None:
        model = choose_operating_point(model, args.sensitivity)
    split = args.split or ("all" if source.of_files and not is_own(model, source) else "test")

    at_home = model.path if model.path.is_dir() else model.path.with_suffix("")
    folder = at_home if args.out is None else Path(args.out, name_of(model.path))
    with outputs.output(folder, [file.format(split) for file in FILES], [source.path]) as out:
        lines = report(model, source, split, out, args)
    print(*lines, sep="\n")


if __name__ == "__main__":
    flags.run(main)
