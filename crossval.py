"""Cross-validate the recipe: k models, each scored on the fold it has not seen; together they are an ensemble, or with
--refit one more model, trained on all of the pool, takes their place.

By default near-duplicates share a fold, over train+val. Plain stratified folds over train, as in the study that this
began as, are --folds 5 --groups none --pool train.
"""

import sys
from dataclasses import asdict

import numpy as np

import common

POOLS = {"train": ["train"], "train+val": ["train", "val"], "all": ["train", "val", "test"]}


def parse_args():
    parser = common.cli.Parser(__doc__)
    one_of, at_least_one = common.settings.one_of, common.settings.POSITIVE_INT
    parser.add_argument(
        "--folds",
        type=common.settings.number(int, 2, np.inf),
        default=5,
        metavar="K",
        help="folds (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=common.settings.number(int, 1, 1000),
        default=1,
        metavar="R",
        help="repeat with other folds and seeds, and average the logits (default: %(default)s)",
    )
    parser.add_argument(
        "--pool",
        type=one_of("train", "train+val", "all"),
        default="train+val",
        metavar="SPLITS",
        help="what to divide: train, train+val or all (default: %(default)s)",
    )
    parser.add_argument(
        "--groups",
        type=one_of("twins", "none"),
        default="twins",
        metavar="HOW",
        help="twins: near-duplicates share a fold; none: every image by itself (default: %(default)s)",
    )
    parser.add_argument(
        "--compare-groups",
        action="store_true",
        help="also run the other way of --groups, and print both side by side (default: off)",
    )
    parser.add_argument(
        "--drop-test-twins",
        action="store_true",
        help="leave out images with a near-duplicate in test, which makes all of test clean (default: off)",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="train one more model, on all of the pool; it is the run instead of the ensemble, calibrated by the folds "
        "(default: off)",
    )
    parser.add_argument("--no-test", action="store_true", help="do not read test: for choosing settings (default: off)")
    parser.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="models trained at once, sharing --threads (default: as many as threads, at most K)",
    )
    common.cli.add_run_flags(parser, "runs/crossval")
    args = parser.parse_args()
    if args.pool == "all" and args.drop_test_twins:
        parser.error("--drop-test-twins leaves nothing to test on with --pool all; choose one of them")
    args.jobs = args.jobs or min(args.threads, args.folds)
    return args


def read_pool(source, args):
    """The images to divide and where each is from: (Split, split names [n], indices within the split [n])."""
    names = POOLS[args.pool]
    splits = common.data.load(source, *names)
    pool = common.data.join(*splits)
    origin = np.repeat(names, [len(split) for split in splits])
    index = np.concatenate([np.arange(len(split)) for split in splits])
    if not args.drop_test_twins:
        return pool, origin, index
    (test,) = common.data.load(source, "test")  # its images only say what to leave out
    kept = common.evaluation.clean_mask(pool, test)
    print(f"left out {np.sum(~kept)} of {len(pool)} images, near-duplicates of test images", file=sys.stderr)
    return pool[kept], origin[kept], index[kept]


def validate(pool, groups, settings, args, partial):
    """Cross-validate one way of grouping; completed folds are in the folder `partial`."""
    how = settings, args.folds, args.repeats, args.seed, args.jobs, args.threads, args.device, partial
    return common.crossvalidation.cross_validate(pool, groups, *how, refit=args.refit and groups == args.groups)


def used_models(validation) -> dict:
    """The models of the run and the names of their files: the refit one, or the folds' as an ensemble."""
    if validation.refit:
        return {"model.pt": validation.refit}
    return {f"fold_{i + 1}.pt": model for i, model in enumerate(validation.models)}


def held_out_rows(pool, origin, index, validation, temperature) -> list[dict]:
    """Out-of-fold rows of predictions.csv, calibrated: each image once for each repeat."""
    rows = []
    for fold, logits in zip(validation.fold + 1, validation.logits):
        probabilities = common.calibration.sigmoid(logits / temperature)
        for name in dict.fromkeys(origin):
            of = origin == name
            rows += common.runs.prediction_rows(name, pool.labels[of], probabilities[of], index[of], fold[of])
    return rows


def score_test(source, models, settings, temperature):
    """The run's model or ensemble on test, which is read only now that everything is chosen."""
    test, train, val = common.data.load(source, "test", "train", "val")
    predictor = common.model.Predictor(models, settings.mirror == "on", temperature)
    probabilities = common.calibration.sigmoid(common.model.predict(predictor, test.images))
    return common.evaluation.Scored(test.labels, probabilities, common.evaluation.clean_mask(test, train, val))


def score(validation, pool, origin, index, source, settings, args):
    """Calibrate on the out-of-fold predictions, then predict test: (calibration, {name: Scored}, rows for
    predictions.csv)."""
    logits = validation.mean_logits
    calibration = common.calibration.calibrate(pool.labels, logits, args.sensitivity, "out-of-fold predictions")
    rows = held_out_rows(pool, origin, index, validation, calibration.temperature)
    probabilities = common.calibration.sigmoid(logits / calibration.temperature)
    scored = {"out_of_fold": common.evaluation.Scored(pool.labels, probabilities)}
    if not args.no_test and args.pool != "all":
        models = list(used_models(validation).values())
        scored["test"] = test = score_test(source, models, settings, calibration.temperature)
        rows += common.runs.prediction_rows("test", test.labels, test.probabilities, fold=[""] * len(test.labels))
    return calibration, scored, rows


def spread_table(kind: str, scores: list[dict]) -> str:
    """Metrics of each fold, or of each repeat, then their mean and standard deviation."""
    spread = common.intervals.spread(scores, common.tables.COLUMNS)
    table = common.tables.metrics_table({f"{kind} {score[kind]}": score for score in scores})
    return table + "\n" + common.tables.spread_line(f"mean ± std over {kind}s", spread)


def compare_groups(pool, validations) -> dict:
    """What near-duplicates across folds are worth: pooled metrics of both ways of grouping, and their difference, none
    minus twins, on the same images."""
    labels = pool.labels
    probabilities = {way: common.calibration.sigmoid(v.mean_logits) for way, v in validations.items()}
    return {
        "twins": common.intervals.summary(labels, probabilities["twins"]),
        "none": common.intervals.summary(labels, probabilities["none"]),
        "differences": common.comparison.paired_bootstrap(labels, probabilities["none"], probabilities["twins"]),
    }


def comparison_text(compared) -> str:
    """Both ways of grouping side by side, and what the naive one adds."""
    rows = {"twins kept together": compared["twins"], "every image by itself": compared["none"]}
    added = [
        f"{common.tables.COLUMNS[name]} {difference['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        for name, difference in compared["differences"].items()
        for low, high in [difference["ci95"]]
        if name in ("auc", "accuracy")
    ]
    table = common.tables.metrics_table(rows)
    return f"{table}\nsplitting near-duplicates adds: {', '.join(added)}, 95 % intervals over images"


def save(out, models, settings, source, args, calibration, rows, metrics):
    """Write the files of the run. models: {file name: model}."""
    for name, model in models.items():
        common.runs.save_model(out / name, model, settings, args.seed, source, POOLS[args.pool])
    common.runs.write_json(out / "calibration.json", asdict(calibration), source)
    common.runs.write_csv(out / "predictions.csv", rows, source)
    common.runs.write_csv(out / "folds.csv", [common.metrics.flatten(fold) for fold in metrics["folds"]], source)
    common.runs.write_json(out / "metrics.json", metrics, source)


def main():
    args = parse_args()
    settings = common.settings.from_args(args)
    source = common.data.find(args.data, args.data_root, args.size, args.seed)
    pool, origin, index = read_pool(source, args)
    ways = [args.groups] + [way for way in ("twins", "none") if args.compare_groups and way != args.groups]

    foreign = "fold_*.pt" if args.refit else "model.pt"
    with common.resume.begin(args, settings, source, foreign) as partial:
        common.seed.set_seed(args.seed, args.threads)
        validations = {way: validate(pool, way, settings, args, partial) for way in ways}
        validation = validations[args.groups]
        calibration, scored, rows = score(validation, pool, origin, index, source, settings, args)
        report = common.evaluation.report(scored, calibration)
        folds, repeats = validation.score_folds(pool.labels), validation.score_repeats(pool.labels)
        metrics = common.runs.describe(args, settings, source) | report | {"folds": folds, "repeats": repeats}
        if args.compare_groups:
            metrics["compare_groups"] = compare_groups(pool, validations)
        with common.resume.finish(partial) as out:
            save(out, used_models(validation), settings, source, args, calibration, rows, metrics)
    if args.compare_groups:
        print(comparison_text(metrics["compare_groups"]), end="\n\n")
    spreads = [spread_table("fold", folds)] + ([spread_table("repeat", repeats)] if args.repeats > 1 else [])
    print(*spreads, common.evaluation.report_text(report, source), f"written to {args.out}/", sep="\n\n")


if __name__ == "__main__":
    common.cli.run(main)
