"""Cross-validate the recipe: k models, each scored on the fold it has not seen; together they are an ensemble, or with
--refit one more model, trained on all of the pool, takes their place.

By default images of one patient, where patients are known, and near-duplicates share a fold, over train+val. With
--groups hospital each data set is a fold. Plain stratified folds over train, as in the first study, are
--folds 5 --groups image --pool train.
"""

from dataclasses import replace

from common import data, scoring
from common.crossvalidation import CrossValidation, Scheme, cross_validate
from common.data import Found, Images
from common.errors import UserError
from common.files import write_csv
from common.looks import choose_found_threshold, predict
from common.metrics import flatten
from common.model import Predictor, device_of
from common.run import flags, folders, provenance, resume
from common.scoring import Scored
from common.seed import set_seed
from common.settings import POSITIVE_INT, Settings, number, one_of
from common.show import tables
from common.thresholds import Rule

POOLS = {"train": ["train"], "train+val": ["train", "val"], "all": ["train", "val", "test"]}


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--folds", number(int, 2, 10_000), "folds", 5)
    flags.add(parser, "--repeats", number(int, 1, 1000), "repeat with other folds and seeds, and average the logits", 1)
    flags.add(parser, "--pool", one_of(*POOLS), "what to divide", "train+val")
    how = "what shares a fold. patient: images of one patient, and near-duplicates; image: nothing, every image by "
    how += "itself; hospital: each data set of --data, so that no model has seen the hospital that it predicts"
    flags.add(parser, "--groups", one_of("patient", "image", "hospital"), how, "patient")
    refit = "train so many more models (1 where no N is given), on all of the pool; they are the run instead of the "
    refit += "ensemble, calibrated by the folds"
    flags.add(parser, "--refit", number(int, 0, 1000), refit, 0, nargs="?", const=1)
    flags.add_switch(parser, "--no-test", "do not read test: for choosing settings")
    jobs = "models trained at once, which share --threads"
    flags.add(parser, "--jobs", POSITIVE_INT, jobs, shown="as many as threads, at most one per model")
    flags.add_run_flags(parser, "runs/crossval")
    return parser.parse_args()


def count_folds(pool: Images, args) -> int:
    """The number of folds. Raises: UserError when there is one hospital only."""
    if args.groups != "hospital":
        return args.folds
    if (hospitals := len(set(pool.hospitals))) < 2:
        raise UserError("--groups hospital needs at least two hospitals; give --data two data sets")
    return hospitals


def model_files(models: int) -> list[str]:
    """The names of the models of a run."""
    return [f"fold_{i + 1}.pt" for i in range(models)] if models > 1 else ["model.pt"]


def score(validation: CrossValidation, pool: Images, found: Found, settings: Settings, args):
    """Calibrate on out-of-fold predictions, then predict test: (the calibration, the predictions of both, rows for
    predictions.csv, all images that were read)."""
    logits, groups = validation.mean_logits, pool.groups
    by_hospital = args.groups == "hospital"
    rule = Rule("sensitivity", args.sensitivity)
    found_threshold = choose_found_threshold(pool, validation.found.mean(0))
    calibration = scoring.calibrate(pool, logits, groups, rule, "out_of_fold", by_hospital, found_threshold)
    probabilities = calibration.probabilities(logits)
    out_of_fold = Scored("out_of_fold", pool, probabilities, groups, chose=("calibration", "threshold"))
    given = validation.look_at_boxes(pool, settings.mirror) if settings.view == "lesion" else None
    scored = scoring.by_boxes(out_of_fold, None if given is None else calibration.probabilities(given))
    rows = []
    for fold, of_repeat in zip(validation.fold + 1, validation.logits):
        rows += folders.prediction_rows(pool, calibration.probabilities(of_repeat), fold)
    images = pool
    if not args.no_test and args.pool != "all":
        test = data.load(found, "test", optional=["test"])  # read only now, when everything is chosen
        known = data.concatenate(pool, data.load(found, "val", optional=["val"])) if args.pool == "train" else pool
        images = data.concatenate(known, test)
        if len(test):
            logits, _ = predict(Predictor(validation.used, settings.mirror), test)
            of_test = scoring.score_test(images, images.are_of("test"), calibration.probabilities(logits))
            scored.append(of_test)
            rows += folders.prediction_rows(test, of_test.probabilities, fold=[""] * len(test))
    return calibration, scored, rows, images


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    undivided = "train" if args.groups == "hospital" else None  # a hospital that is left out needs no test of its own
    found = data.find(
        args.data, args.data_root, args.size, args.seed, args.positive, undivided=undivided, view=settings.view
    )
    settings = replace(settings, view=found.view)
    pool = data.load(found, *POOLS[args.pool], optional=["val", "test"])
    data.require_apart(found)
    device, folds = device_of(args.device), count_folds(pool, args) * args.repeats
    args.jobs = args.jobs or min(args.threads, folds + args.refit)
    scheme = Scheme(args.groups, args.folds, args.repeats, args.seed, args.refit, args.jobs, args.threads, device)
    described = provenance.describe(args, settings, found)

    models = model_files(args.refit or folds)
    with resume.begin(args, settings, found, described, [*folders.FILES, "folds.csv", *models]) as partial:
        set_seed(args.seed, args.threads)
        validation = cross_validate(pool, settings, scheme, partial)
        calibration, scored, rows, images = score(validation, pool, found, settings, args)
        results = scoring.evaluate(scored, calibration)
        spreads = {"folds": validation.score_folds(pool), "repeats": validation.score_repeats(pool.labels)}
        metrics = described | scoring.summary(results, calibration) | spreads
        with resume.finish(partial) as out:
            for name, model in zip(models, validation.used):
                folders.save_model(out / name, model, settings, args.seed, found, POOLS[args.pool])
            folders.save_table(out, images, found.unread(images))
            folders.save_results(out, found, calibration, rows, metrics)
            write_csv(out / "folds.csv", [flatten(fold) for fold in spreads["folds"]], found.notice)
    shown = [tables.spread_table("fold", spreads["folds"])]
    shown += [tables.spread_table("repeat", spreads["repeats"])] * (args.repeats > 1)
    text = tables.results_text(results, calibration, found.label, scoring.notes(scored, results))
    print(*shown, text, f"written to {args.out}/", sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
