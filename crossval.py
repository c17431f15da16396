"""Cross-validate the recipe: k models, each scored on the fold it has not seen; together they are an ensemble, or with
--refit one more model, trained on all of the pool, takes their place.

By default near-duplicates, and images of one patient where patients are known, share a fold, over train+val. Plain
stratified folds over train, as in the study that this began as, are --folds 5 --groups none --pool train.
"""

import sys
from dataclasses import asdict, replace

import numpy as np

from common import comparison, data, intervals, scoring
from common.calibration import ELSEWHERE, LEFT_OUT, OUT_OF_FOLD, calibrate, sigmoid
from common.crossvalidation import CrossValidation, Scheme, cross_validate
from common.data import Source, Split
from common.errors import UserError
from common.files import write_csv
from common.metrics import NAMES, flatten
from common.model import Predictor, device_of, predict
from common.run import flags, folders, provenance, resume
from common.scoring import evaluate_splits, groups_beside
from common.seed import set_seed
from common.settings import NATURAL, POSITIVE_INT, Settings, number, one_of
from common.show import tables

WAYS = {  # of --groups, the strictest first
    "hospitals": "a hospital left out",
    "twins": "twins kept together",
    "none": "every image by itself",
}
POOLS = {"train": ["train"], "train+val": ["train", "val"], "all": ["train", "val", "test"]}


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--folds", number(int, 2, np.inf), "folds", 5)
    flags.add(parser, "--repeats", number(int, 1, 1000), "repeat with other folds and seeds, and average the logits", 1)
    flags.add(parser, "--pool", one_of(*POOLS), "what to divide", "train+val")
    how = "twins: near-duplicates, and images of one patient, share a fold; none: every image by itself; hospitals: "
    how += "each hospital, --data and those of --also, is a fold, so that a model never knows the one it predicts"
    flags.add(parser, "--groups", one_of("twins", "none", "hospitals"), how, "twins")
    other = "also run the other way of --groups (of hospitals: twins), and print both side by side"
    flags.add_switch(parser, "--compare-groups", other)
    twins = "leave out images that share a group with one of test, which makes all of test clean"
    flags.add_switch(parser, "--drop-test-twins", twins)
    refit = "train so many more models (1 where no N is given), on all of the pool; they are the run instead of the "
    refit += "ensemble, calibrated by the folds"
    flags.add(parser, "--refit", NATURAL, refit, 0, nargs="?", const=1)
    elsewhere = "choose temperature and operating point on images of another hospital, as --data takes them, which "
    elsewhere += "train nothing"
    flags.add(parser, "--calibrate-on", flags.WHAT, elsewhere, shown="the held-out predictions")
    flags.add_switch(parser, "--no-test", "do not read test: for choosing settings")
    jobs = "models trained at once, sharing --threads"
    flags.add(parser, "--jobs", POSITIVE_INT, jobs, shown="as many as threads, at most K folds")
    flags.add_run_flags(parser, "runs/crossval")
    args = parser.parse_args()
    if args.pool == "all" and args.drop_test_twins:
        parser.error("--drop-test-twins leaves nothing to test on with --pool all; choose one of them")
    if args.groups == "hospitals" and not args.also:
        parser.error("--groups hospitals needs another hospital; give --also a FOLDER or FILE.csv of its images")
    args.jobs = args.jobs or min(args.threads, args.folds)
    return args


def model_files(args, source: Source) -> list[str]:
    """The names of the models of a run."""
    folds = 1 + len(source.also) if args.groups == "hospitals" else args.folds
    models = args.refit or folds * args.repeats
    return [f"fold_{i + 1}.pt" for i in range(models)] if models > 1 else ["model.pt"]


def read_pool(source: Source, names: list[str], drop_test_twins: bool) -> Split:
    """The images to divide."""
    pool = data.concatenate(*data.load(source, *names))
    if not drop_test_twins:
        return pool
    (test,) = data.load(source, "test")  # its images only say what to leave out
    _, kept = groups_beside(pool, test)
    print(f"left out {np.sum(~kept)} of {len(pool)} images, in a group with test images", file=sys.stderr)
    return pool[kept]


def read_elsewhere(other: Source, source: Source, pool: Split) -> dict[str, Split]:
    """{what to call them: all images of --calibrate-on}. Raises: UserError when the models are trained on them, a class
    is absent, or phantoms would calibrate a model of real images."""
    if other.md5 in (known.md5 for known in (source, *source.also)):
        raise UserError(f"--calibrate-on {other.name}: is among --data and --also; give images that train nothing")
    if other.synthetic and not source.synthetic:
        raise UserError("--calibrate-on phantom: --data are real images; give images of another hospital")
    (images,) = data.load(other, "all")
    data.require_both_classes(images.labels, f"--calibrate-on {other.name}:")
    if same := scoring.count_seen(images, pool)["trained_on"]:
        raise UserError(f"--calibrate-on {other.name}: {same} of its images are trained on; leave these out")
    patients = [{"patient": row.get("patient", "")} for row in images.rows]
    return {ELSEWHERE.format(other.called): Split.of("elsewhere", images.images, images.labels, patients)}


def score(validation: CrossValidation, pool: Split, elsewhere: dict[str, Split], source, settings: Settings, args):
    """Calibrate on held-out predictions, then predict test, which is read only now that everything is chosen:
    (calibrations, the run's first, {name: Scored}, rows for predictions.csv)."""
    logits, predictor = validation.mean_logits, Predictor(validation.used, settings.mirror)
    held_out = {name: (split, predict(predictor, split.images)) for name, split in elsewhere.items()}
    held_out[LEFT_OUT if args.groups == "hospitals" else OUT_OF_FOLD] = pool, logits
    calibrations = [
        calibrate(split.labels, z, args.sensitivity, name, split.hospitals if name == LEFT_OUT else None)
        for name, (split, z) in held_out.items()
    ]
    temperature = calibrations[0].temperature
    rows = []
    for fold, of_repeat in zip(validation.fold + 1, validation.logits):
        rows += folders.prediction_rows(pool, sigmoid(of_repeat / temperature), fold)
    probabilities = sigmoid(logits / temperature)
    scored = {"out_of_fold": scoring.score(pool, probabilities)}
    for hospital in np.unique(pool.hospitals) if source.also else []:
        own = pool.hospitals == hospital
        scored[f"out_of_fold, {hospital or source.called}"] = scoring.score(pool[own], probabilities[own])
    for split, z in (held_out[name] for name in elsewhere):
        scored["elsewhere"] = scoring.score(split, sigmoid(z / temperature))
    if not args.no_test and args.pool != "all":
        test, *seen = data.load(source, "test", "train", "val", *data.further(source))
        probabilities = sigmoid(predict(Predictor(validation.used, settings.mirror, temperature), test.images))
        scored["test"] = scoring.score(test, probabilities, *seen, apart=not args.drop_test_twins)
    for name in ("elsewhere", "test"):
        if one := scored.get(name):
            rows += folders.prediction_rows(one.split, one.probabilities, fold=[""] * len(one.split))
    return calibrations, scored, rows


def compare_groups(pool: Split, logits: dict[str, np.ndarray]) -> dict:
    """What it is worth to have seen more of an image's kind: pooled metrics of both ways of grouping, the stricter
    first, and their difference, second minus first, on the same images. logits: of each way, [n]."""
    labels, counts = pool.labels, intervals.resample_counts(pool.labels, data.find_groups(pool))
    strict, naive = (way for way in WAYS if way in logits)
    probabilities = {way: sigmoid(logits[way]) for way in (strict, naive)}
    compared: dict = {way: intervals.summary(labels, held_out, counts) for way, held_out in probabilities.items()}
    differences = comparison.paired_bootstrap(labels, probabilities[naive], probabilities[strict], counts)
    return compared | {"differences": differences}


def comparison_text(compared: dict) -> str:
    """Both ways of grouping side by side, and what the second adds."""
    added = [
        f"{NAMES[name]} {tables.with_limits(difference['difference'], difference['ci95'], '+.4f')}"
        for name, difference in compared["differences"].items()
        if name in ("auc", "accuracy")
    ]
    table = tables.metrics_table({WAYS[way]: compared[way] for way in WAYS if way in compared})
    what = "knowing the hospital" if "hospitals" in compared else "splitting near-duplicates"
    return f"{table}\n{what} adds: {', '.join(added)}, 95 % intervals"


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    source = data.find(args.data, args.data_root, args.size, args.seed, also=args.also)
    data.require(source, *(POOLS[args.pool] if args.no_test else data.SPLITS))
    if not (args.no_test or args.drop_test_twins or args.pool == "all"):
        scoring.require_unseen(source, "leave these out by --drop-test-twins, or test by --no-test", "test")
    names = [*POOLS[args.pool], *data.further(source)]
    pool = read_pool(source, names, args.drop_test_twins)
    other = args.calibrate_on and data.find(args.calibrate_on, args.data_root, args.size, args.seed)
    elsewhere = read_elsewhere(other, source, pool) if other else {}
    labels, device = pool.labels, device_of(args.device)
    scheme = Scheme(args.groups, args.folds, args.repeats, args.seed, args.refit, args.jobs, args.threads, device)
    described = provenance.describe(args, settings, source, other)
    files = [*folders.FILES, "folds.csv", *model_files(args, source)]

    with resume.begin(args, settings, source, described, files) as partial:
        set_seed(args.seed, args.threads)
        validation = cross_validate(pool, settings, scheme, partial)
        calibrations, scored, rows = score(validation, pool, elsewhere, source, settings, args)
        scores = evaluate_splits(scored, calibrations[0])
        folds, repeats = validation.score_folds(labels), validation.score_repeats(labels)
        metrics = described | scores | {"folds": folds, "repeats": repeats}
        if args.compare_groups:
            way = "none" if args.groups == "twins" else "twins"
            second = cross_validate(pool, settings, replace(scheme, groups=way, refit=0), partial)
            calibrations.append(calibrate(labels, second.mean_logits, args.sensitivity, OUT_OF_FOLD))
            ways = {args.groups: validation.mean_logits, way: second.mean_logits}
            metrics["compare_groups"] = compare_groups(pool, ways)
        metrics["calibrations"] = [asdict(calibration) for calibration in calibrations]
        with resume.finish(partial) as out:
            for name, model in zip(model_files(args, source), validation.used):
                folders.save_model(out / name, model, settings, args.seed, source, names)
            folders.save_results(out, source, calibrations[0], rows, metrics)
            write_csv(out / "folds.csv", [flatten(fold) for fold in folds], source.notice)
    if args.compare_groups:
        print(comparison_text(metrics["compare_groups"]), end="\n\n")
    spreads = [tables.spread_table("fold", folds)]
    if args.repeats > 1:
        spreads.append(tables.spread_table("repeat", repeats))
    lines = [*spreads, tables.scores_text(scores, source.label), *scoring.none_clean(scored)]
    print(*lines, f"written to {args.out}/", sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
