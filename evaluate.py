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
from common.run import flags, folders, provenance, standard
from common.seed import set_seed
from common.settings import Kind, number, one_of
from common.show import cases, figures, page, tables


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
    flags.add(parser, "--out", flags.FOLDER, "folder for the results", shown="RUN, or the folder of the .onnx")
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
    seen the image; own: the data are the model's own; seen: `scoring.count_seen` where they are not, if it can be told.
    """

    model: folders.Run | onnxfile.OnnxModel
    source: data.Source
    name: str
    scored: scoring.Scored
    out_of_fold: bool
    own: bool
    seen: dict[str, int] | None

    @property
    def label(self) -> str:
        """What to call the images; an .onnx file gets image files as they are, as an app would give them."""
        whole = isinstance(self.model, onnxfile.OnnxModel) and self.source.of_files
        return f"{self.source.called} at full size" if whole else self.source.label

    @property
    def flatters(self) -> bool:
        """Whether the model was trained on some of the images."""
        fitted = self.own and self.name in (*self.model.data["trained_on"], "all") and not self.out_of_fold
        return fitted or bool(self.seen and self.seen["trained_on"])

    @property
    def marked(self) -> dict:
        """How many images an .onnx file marks as unlike its training images; empty where the model cannot tell."""
        if self.scored.typical is None or isinstance(self.model, folders.Run):
            return {}
        return {"threshold": self.model.typicality_threshold, "marked": int(sum(~self.scored.typical))}

    def notes(self, scores: dict) -> list[str]:
        """What a reader must know. scores: `scoring.evaluate_splits` of these predictions."""
        unlike = "Unlike the training images, with a typicality below {threshold:g}: {marked} images."
        said = [unlike.format(**self.marked)] if self.marked else []
        if self.own:
            return said + [f"The model was trained on {self.name}: these figures flatter it."] * self.flatters
        if self.seen:
            counts = "trained on {trained_on}, {near_duplicates} are near-duplicates of such, {unseen} it has not seen"
            flatter = ": the figures of all of them flatter it" if self.flatters else ""
            said.append(
                f"Of these {len(self.scored.split)} images the model was {counts.format(**self.seen)}{flatter}."
            )
        else:
            said.append("The model's training images are not here: how many of these it has seen cannot be told.")
        if phantoms := data.notice(self.model.data):
            said.append(f"The model was trained on {phantoms}.")
        promised, here = self.model.held_out, scores["operating_point"]["splits"][self.name]
        if promised:
            said.append(f"Promised at this threshold, {tables.promise(promised)}; kept here: {tables.promise(here)}.")
            if self.model.calibration.fitted_on == ELSEWHERE.format(called := self.source.called):
                said.append(f"Images called {called} chose it: if these are they, the promise is kept by construction.")
        return said


def predict(model, source: data.Source, split: data.Split, name: str) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """P(malignant) of a split; which images an .onnx file takes for typical of its training images, None where it
    cannot tell; and whether out-of-fold: so an ensemble predicts the images that it was trained on. An .onnx file gets
    image files at their full size, as an app would give them."""
    if isinstance(model, onnxfile.OnnxModel):
        outputs = ["probability"] + ["typicality"] * model.gives("typicality")
        paths = [source.folder / row["image"] for row in split.rows] if source.of_files else []
        found = model.run_files(outputs, paths) if paths else model.run(outputs, split.images)
        return found[0], ~model.unlike(found[1]) if found[1:] else None, False
    if model.data["md5"] == source.md5 and name in model.data["trained_on"]:
        rows = folders.read_predictions(model.path / "predictions.csv")
        unseen = [row for row in rows if row["split"] == name and row["out_of_fold"]]
        if len(unseen) == len(split):
            return folders.columns(unseen)[1], None, True
    return model.probabilities(split.images), None, False


def left_out_test_twins(model) -> bool:
    """Whether crossval.py trained on nothing that has a near-duplicate in test, so that all of test is clean."""
    run = isinstance(model, folders.Run)
    return run and folders.read_metrics(model.path).get("config", {}).get("drop_test_twins", False)


def evaluate(model, source: data.Source, name: str, root: str | None, also: Sequence[str] = ()) -> Evaluated:
    """Predict a split, and set apart its images that share no group with what may have been trained on. also: where the
    other hospitals that the model was trained on lie now."""
    kept = folders.kept_images(folder_of(model))
    own = is_own(model, source)
    earlier = data.SPLITS[: data.SPLITS.index(name)] if own and name != "all" else ()
    split, *others = data.load(source, name, *earlier, *(data.further(source) if own else []))
    probabilities, typical, out_of_fold = predict(model, source, split, name)
    fitted, seen = model.data["trained_on"], None
    if own:
        whole = source.also or "also" not in fitted  # else twins of what is gone cannot be told
        apart = bool(whole) and not out_of_fold and not (name == "test" and left_out_test_twins(model))
        scored = scoring.score(split, probabilities, *others, apart=apart)
    else:
        hospitals = model.data.get("also", [])  # of which these may be one
        also = also or [source.name if other["md5"] == source.md5 else other["name"] for other in hospitals]
        trained = origin.load_again(model.data, root, fitted, kept, also)
        seen = scoring.count_seen(split, trained) if trained else None
        known = trained
        if "val" not in fitted:  # it chose
            known = origin.load_again(model.data, root, [*fitted, "val"], kept, also)
        scored = scoring.score(split, probabilities, *([known] if known else []))
        if scored.clean is not None and scored.clean.all():
            scored = replace(scored, clean=None)
    return Evaluated(model, source, name, replace(scored, typical=typical), out_of_fold, own, seen)


def is_own(model, source: data.Source) -> bool:
    """Whether the data are what the model was made with."""
    return model.data["md5"] == source.md5 or source.kept == folder_of(model) / folders.IMAGES


def folder_of(model) -> Path:
    """The run folder, or the one around an .onnx."""
    return model.path if model.path.is_dir() else model.path.parent


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


def compare(evaluated: Evaluated, name: str, args, seed: int) -> dict:
    """The tests of a model against what --against names."""
    ours, theirs, names = evaluated.scored, predict_other(evaluated, args), (name, args.against)
    return comparison.compare(ours.labels, ours.probabilities, theirs, ours.groups, names, args.bootstrap, seed)


def draw(evaluated: Evaluated, resamples: int, seed: int) -> dict:
    """The figures of the scores, {what it shows: (file stem, Figure)}."""
    model, scored = evaluated.model, evaluated.scored
    shown = scored.labels, scored.probabilities
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    counts = scored.resample_counts(resamples, seed)
    title = f"{evaluated.label}, {evaluated.name}{', out-of-fold' if evaluated.out_of_fold else ''}"
    drawn = {
        "ROC curve": ("roc", figures.roc(*shown, counts, thresholds, title)),
        "Precision-recall curve": ("precision_recall", figures.precision_recall(*shown, counts, thresholds, title)),
        "Reliability diagram": ("reliability", figures.reliability(*shown, title)),
        "Scores by class": ("scores", figures.score_histogram(*shown, thresholds, title)),
        "Confusion matrices": ("confusion", figures.confusion(*shown, thresholds, title)),
    }
    if isinstance(model, onnxfile.OnnxModel) and not model.gives("evidence"):
        print(f"note: {model.path} is an earlier export, which gives no evidence: no sheet of it", file=sys.stderr)
    elif not evaluated.out_of_fold:
        drawn["Evidence"] = ("evidence", cases.sheet(model, scored.split.images, *shown, title))
    if isinstance(model, folders.Run):
        stored = folders.read_metrics(model.path)
        if (folds := stored.get("folds")) and evaluated.own:
            of_folds = f"{evaluated.source.label}, {len(folds)} folds"
            drawn["Folds"] = ("folds", figures.fold_overview(folds, stored["splits"]["out_of_fold"], of_folds))
    return drawn


def save(out: Path, evaluated: Evaluated, scores: dict, drawn: dict, notes: list[str], threads: int) -> Path:
    """Write evaluation_<split>.json, the figures, the predictions of image files, and the report, whose path is
    returned."""
    split, source, called = evaluated.name, evaluated.source, evaluated.model.path.resolve().name
    predictions = "out-of-fold predictions" if evaluated.out_of_fold else "predictions of the model"
    head = {"model": called, "split": split, "predictions": predictions, "images": evaluated.label}
    seen = {} if evaluated.own else {"seen": evaluated.seen}
    made = {"unlike_training": evaluated.marked or None, "provenance": provenance.provenance(source, threads)}
    files.write_json(out / f"evaluation_{split}.json", head | seen | made | scores, source.notice)
    if source.of_files:
        rows = folders.prediction_rows(evaluated.scored.split, evaluated.scored.probabilities)
        files.write_csv(out / f"predictions_{split}.csv", rows, source.notice)
    pictures = {what: out / f"{stem}_{split}.png" for what, (stem, _) in drawn.items()}
    for what, (_, figure) in drawn.items():
        figures.save(figure, pictures[what])
    path = out / ("report.html" if split == "test" else f"report_{split}.html")
    what = f"{evaluated.label}: {predictions} of {called}"
    page.write_report(path, called, what, split, scores, pictures, notes)
    return path


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    given = args.data, args.data_root, args.size, args.seed
    source = origin.find_again(model.data, *given, folders.kept_images(folder_of(model)), args.also)
    if args.sensitivity is not None:
        model = choose_operating_point(model, args.sensitivity)
    name, seed = name_of(model.path), source.seed if args.seed is None else args.seed
    split = args.split or ("all" if source.of_files and not is_own(model, source) else "test")

    evaluated = evaluate(model, source, split, args.data_root, args.also)
    compared = compare(evaluated, name, args, seed) if args.against else None
    shown, official = evaluated.scored, source.name == "breastmnist" and split != "all"
    result = standard.result(shown.labels, shown.probabilities, source, split, name) if official else None
    scores = scoring.evaluate_splits({split: evaluated.scored}, model.calibration, args.bootstrap, seed)
    drawn = draw(evaluated, args.bootstrap, seed)
    notes = evaluated.notes(scores)
    lines = [tables.scores_text(scores, evaluated.label), *notes]
    if compared:
        scores["comparison"] = compared
        figure = figures.comparison(compared["differences"], name, name_of(args.against), evaluated.label)
        drawn["Comparison"] = ("comparison", figure)
        lines.append(compared["conclusion"])

    with folders.output(folder_of(model) if args.out is None else args.out) as out:
        if args.sensitivity is not None:
            store_operating_point(model)
        written = save(out, evaluated, scores, drawn, notes, args.threads)
        if result:
            standard.write(out / result[0], result[1], split, name)
            lines.append(f"MedMNIST's standard result file: {out / result[0]}")
    print(*lines, f"figures, evaluation_{split}.json and {written.name}: {out}/", sep="\n")


if __name__ == "__main__":
    flags.run(main)
