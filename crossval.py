"""Cross-validate the training: train k models, and score each model on the fold that it has not seen.

The k models together are an ensemble. With --refit, one more model, trained on all images of the pool, replaces the
ensemble. By default, the pool is train and val, and near-duplicates and images of one patient share a fold. With
--groups hospital, each hospital is a fold. For plain stratified folds over train, as in the first study, give
--folds 5 --groups image --pool train.
"""

from dataclasses import replace

from common import data, scoring
from common.crossvalidation import CrossValidation, Scheme, cross_validate
from common.data import Found, Images
from common.errors import UserError
from common.files import write_csv
from common.kinds import POSITIVE_INT, number, one_of
from common.looks import choose_found_threshold, find_and_predict
from common.metrics import flatten
from common.model import Predictor, device_of
from common.run import flags, folders, provenance, resume
from common.scoring import Scored
from common.seed import set_seed
from common.settings import Settings
from common.show import tables
from common.thresholds import Rule

POOLS = {"train": ["train"], "train+val": ["train", "val"], "all": ["train", "val", "test"]}


def parse_args():
    parser = flags.Parser(__doc__)
    folds = "number of folds; not with --groups hospital, which makes each hospital a fold"
    flags.add(parser, "--folds", number(int, 2, 10_000), folds, shown="5")
    repeats = "number of repeats, each with other folds and seeds; the logits are averaged"
    flags.add(parser, "--repeats", number(int, 1, 1000), repeats, 1)
    flags.add(parser, "--pool", one_of(*POOLS), "the images to divide into folds", "train+val")
    how = "which images share a fold. patient: near-duplicates and images of one patient. image: none. hospital: all "
    how += (
        "images of a hospital (a data set of --data, or a value of the column hospital), so that no model has seen the "
    )
    how += "hospital that it predicts"
    flags.add(parser, "--groups", one_of("patient", "image", "hospital"), how, "patient")
    refit = "train N more models (1 if you give no N) on all images of the pool. They replace the ensemble. The "
    refit += "out-of-fold predictions calibrate them"
    flags.add(parser, "--refit", number(int, 0, 1000), refit, 0, nargs="?", const=1)
    flags.add_switch(parser, "--no-test", "do not read test; give this flag while you choose settings")
    jobs = "number of models trained at once; they share --threads"
    flags.add(parser, "--jobs", POSITIVE_INT, jobs, shown="one per thread, but not more than models")
    flags.add_run_flags(parser, "runs/crossval")
    args = parser.parse_args()
    if args.groups == "hospital" and args.folds:
        parser.error("--groups hospital makes each hospital a fold. Remove --folds")
    return args


def count_folds(pool: Images, args) -> int:
    """Return the number of folds. Raises: UserError when there is only one hospital."""
    if args.groups != "hospital":
        return args.folds or 5
    if (hospitals := len(set(pool.hospitals))) < 2:
        raise UserError(
            "--groups hospital needs two hospitals. Give --data two data sets, or a table with a column hospital."
        )
    return hospitals


def model_files(models: int) -> list[str]:
    """Return the file names of the models of a run."""
    return [f"fold_{i + 1}.pt" for i in range(models)] if models > 1 else ["model.pt"]


def score(validation: CrossValidation, pool: Images, found: Found, settings: Settings, args):
    """Calibrate on the out-of-fold predictions, then predict test.

    Returns: the calibration, the predictions of the pool and of test, rows for predictions.csv, and all images read.
    """
    logits, groups = validation.mean_logits, pool.groups
    hospital_left_out = args.groups == "hospital"
    rule = Rule("sensitivity", args.sensitivity)
    found_threshold = choose_found_threshold(pool, validation.found.mean(0))
    calibration = scoring.fit_calibration(pool, logits, groups, rule, "out_of_fold", hospital_left_out, found_threshold)
    probabilities = calibration.probabilities(logits)
    out_of_fold = Scored("out_of_fold", pool, probabilities, groups, choosing=True, chose=calibration.chose)
    given = validation.look_at_boxes(pool, settings.mirror) if settings.view == "lesion" else None
    scored = scoring.by_boxes(out_of_fold, None if given is None else calibration.probabilities(given))
    rows = []
    for fold, of_repeat in zip(validation.fold + 1, validation.logits):
        rows += folders.prediction_rows(pool, calibration.probabilities(of_repeat), fold)
    images = pool
    if not args.no_test and args.pool != "all":
        test = data.load(found, "test", optional=["test"])  # read only after everything is chosen
        known = data.concatenate(pool, data.load(found, "val", optional=["val"])) if args.pool == "train" else pool
        images = data.concatenate(known, test)
        if len(test):
            logits, _ = find_and_predict(Predictor(validation.used, settings.mirror), test)
            of_test = scoring.score_test(images, images.are_of("test"), calibration.probabilities(logits))
            scored.append(of_test)
            rows += folders.prediction_rows(test, of_test.probabilities, fold=[""] * len(test))
    return calibration, scored, rows, images


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    undivided = "train" if args.groups == "hospital" else None  # a held-out hospital is the test
    found = data.find(
        args.data, args.data_root, args.size, args.seed, args.positive, undivided=undivided, view=settings.view
    )
    settings = replace(settings, view=found.view)
    pool = data.load(found, *POOLS[args.pool], optional=["val", "test"])
    data.require_apart(found)
    args.folds = count_folds(pool, args)
    device, folds = device_of(args.device), args.folds * args.repeats
    args.jobs = args.jobs or min(args.threads, folds + args.refit)
    scheme = Scheme(args.groups, args.folds, args.repeats, args.seed, args.refit, args.jobs, args.threads, device)
    described = provenance.describe(args, settings, found)

    models = model_files(args.refit or folds)
    with resume.begin(args, settings, found, described, [*folders.FILES, "folds.csv", *models]) as partial:
        set_seed(args.seed, args.threads)
        validation = cross_validate(pool, settings, scheme, partial)
        calibration, scored, rows, images = score(validation, pool, found, settings, args)
        results = scoring.score_parts(scored, calibration)
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
    text = tables.results_text(results, calibration, found.label, found.synthetic, scoring.notes(scored, results))
    print(*shown, text, f"written to {args.out}/", sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
