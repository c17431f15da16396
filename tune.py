"""Search learning rate and weight decay: Optuna finds the range, then a grid inside it finds the setting.

A setting's score is the mean AUC over twin-aware folds of train+val; test is never read. The search is kept in
--storage and goes on from there when the same command is run again.
"""

import math
from dataclasses import asdict, replace

import numpy as np

import common

LR_RANGE, WD_RANGE = (1e-5, 1e-2), (1e-5, 1.0)
STARTUP_TRIALS = 5  # random ones, before TPE has something to learn from and the pruner something to compare with
TOP_SHARE = 0.25  # of stage one's trials, best first, span the range of the grid


def parse_args():
    parser = common.cli.Parser(__doc__)
    parser.add_argument(
        "--trials",
        type=common.settings.POSITIVE_INT,
        default=30,
        metavar="N",
        help="trials of the search in all, those of earlier sessions included (default: %(default)s)",
    )
    parser.add_argument(
        "--grid",
        type=common.settings.NATURAL,
        default=3,
        metavar="G",
        help="then a grid of G x G settings inside the range; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=common.settings.number(int, 2, math.inf),
        default=3,
        metavar="K",
        help="twin-aware folds that score a setting (default: %(default)s)",
    )
    parser.add_argument("--storage", metavar="URL", help="Optuna storage (default: the SQLite file study.db in --out)")
    parser.add_argument(
        "--study", default="breastmnist", metavar="NAME", help="name of the study (default: %(default)s)"
    )
    common.cli.add_run_flags(parser, "runs/tune", calibrates=False)
    return parser.parse_args()


def make_objective(pool, settings, args):
    """The function that Optuna maximises: a trial's mean AUC over the folds, reported fold by fold to the pruner."""
    import optuna

    groups = common.twins.find_groups(pool.images)
    fold_of = common.folds.assign_folds(pool.labels, groups, args.folds, args.seed)

    def objective(trial) -> float:
        tried = replace(
            settings,
            lr=trial.suggest_float("lr", *LR_RANGE, log=True),
            wd=trial.suggest_float("wd", *WD_RANGE, log=True),
        )
        trial.set_user_attr("scores", scores := [])
        for fold in range(args.folds):
            name, unseen = f"trial {trial.number} fold {fold + 1}", fold_of == fold
            try:
                _, logits = common.crossvalidation.train_fold(pool, unseen, tried, args.seed + fold, args.device, name)
            except common.training.Diverged:
                raise optuna.TrialPruned() from None
            scores.append(float(common.metrics.auc(pool.labels[unseen], logits)))
            trial.set_user_attr("scores", scores)
            trial.report(float(np.mean(scores)), fold)
            if trial.should_prune():
                raise optuna.TrialPruned()
        return float(np.mean(scores))

    return objective


def open_study(name, sampler, source, settings, args):
    """A new study, or an earlier one to go on with, if it was made with the same settings. Raises: UserError."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = args.storage or f"sqlite:///{args.out}/study.db"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, pruner=pruner, direction="maximize", load_if_exists=True
        )
    except Exception as error:  # SQLAlchemy's, the driver's or Optuna's own
        raise common.errors.UserError(f"--storage {storage}: cannot be opened ({str(error).splitlines()[0]})") from None
    fixed = {key: value for key, value in asdict(settings).items() if key not in ("lr", "wd", "patience")}
    fixed |= {"folds": args.folds, "seed": args.seed, "data_md5": source.md5}
    different = {key for key, value in fixed.items() if study.user_attrs.get("fixed", fixed).get(key) != value}
    if different:
        raise common.errors.UserError(
            f"study {name!r} was begun with other {', '.join(sorted(different))}; use the same, or another --study"
        )
    study.set_user_attr("fixed", fixed)
    return study


def finished(study) -> list:
    """Trials that are complete or pruned; those that failed or were cut off are not counted, and so run again."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def search(pool, source, settings, args):
    """Stage one: TPE over log lr and log wd, up to --trials in all. Returns the study."""
    import optuna

    study = open_study(args.study, None, source, settings, args)
    begun = len(study.trials)  # the sampler goes on where an earlier session stopped, instead of starting over
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=args.seed + begun)
    while (missing := args.trials - len(finished(study))) > 0:
        study.optimize(make_objective(pool, settings, args), n_trials=missing)
    return study


def best_range(study) -> dict[str, tuple[float, float]]:
    """The span of lr and wd over the best TOP_SHARE of the complete trials (at least two)."""
    complete = sorted((t for t in study.trials if t.state.name == "COMPLETE"), key=lambda t: -t.value)
    if not complete:
        raise common.errors.UserError("no trial was completed, all were pruned or diverged; give more --trials")
    top = complete[: max(2, math.ceil(TOP_SHARE * len(complete)))]
    return {key: (min(t.params[key] for t in top), max(t.params[key] for t in top)) for key in ("lr", "wd")}


def search_grid(study, pool, source, settings, args):
    """Stage two: every pair of args.grid values of lr and wd, evenly spaced in the logarithm inside the range."""
    import optuna

    spans = best_range(study).items()
    axes = {key: sorted({float(f"{x:.3g}") for x in np.geomspace(*span, args.grid)}) for key, span in spans}
    name = f"{args.study} grid {args.grid} after {args.trials}"
    grid = open_study(name, optuna.samplers.GridSampler(axes, seed=args.seed), source, settings, args)
    grid.pruner = optuna.pruners.NopPruner()
    if (missing := len(axes["lr"]) * len(axes["wd"]) - len(finished(grid))) > 0:
        grid.optimize(make_objective(pool, settings, args), n_trials=missing)
    return grid


def trial_rows(study, stage: str) -> list[dict]:
    """A row a trial, for trials.csv."""
    rows = []
    for trial in finished(study):
        scores = trial.user_attrs["scores"]
        mean, std = common.intervals.mean_std(scores)
        rows.append(
            {
                "stage": stage,
                "trial": trial.number,
                "state": trial.state.name.lower(),
                **trial.params,
                "folds": len(scores),
                "auc": mean,
                "standard_error": std / math.sqrt(max(len(scores), 1)),
            }
        )
    return rows


def grid_table(rows) -> str:
    """Mean AUC ± standard error, learning rates down, weight decays across."""
    lrs, wds = (sorted({row[key] for row in rows}) for key in ("lr", "wd"))
    cells = {(row["lr"], row["wd"]): f"{row['auc']:.4f} ± {row['standard_error']:.4f}" for row in rows}
    header = common.tables.line("lr \\ wd", [f"{wd:.3g}" for wd in wds], 18)
    return "\n".join(
        [header, *(common.tables.line(f"{lr:.3g}", [cells.get((lr, wd), "") for wd in wds], 18) for lr in lrs)]
    )


def draw(rows, best, source, out):
    """study.png: the score of every trial of the search; grid.png: the grid as a heat map."""
    figures = common.figures
    searched = [row["auc"] if row["state"] == "complete" else None for row in rows if row["stage"] == "search"]
    title = f"{source.label}, mean AUC over folds"
    figures.save(figures.search_history(searched, title, "AUC"), out / "study.png")
    grid = [row for row in rows if row["stage"] == "grid"]
    if grid:
        lrs, wds = (sorted({row[key] for row in grid}) for key in ("lr", "wd"))
        scores, errors = np.full((2, len(lrs), len(wds)), np.nan)
        for row in grid:
            cell = lrs.index(row["lr"]), wds.index(row["wd"])
            scores[cell], errors[cell] = row["auc"], row["standard_error"]
        chosen = lrs.index(best["lr"]), wds.index(best["wd"])
        figures.save(figures.heat_map(lrs, wds, scores, errors, chosen, title), out / "grid.png")


def save(out, settings, source, args, rows, best):
    """Write best.json, whose keys with an underscore are for people, trials.csv and the figures."""
    found = {"_auc": best["auc"], "_standard_error": best["standard_error"], "_folds": args.folds}
    found |= {"_provenance": common.runs.provenance(source, args.threads)}
    chosen = asdict(replace(settings, lr=best["lr"], wd=best["wd"]))
    common.runs.write_csv(out / "trials.csv", rows, source)
    draw(rows, best, source, out)
    common.runs.write_json(out / "best.json", chosen | found, source)


def main():
    args = parse_args()
    settings = common.settings.from_args(args)
    source = common.data.find(args.data, args.data_root, args.size, args.seed)
    pool = common.data.join(*common.data.load(source, "train", "val"))
    common.model.check_weights(settings.weights, source.size, settings.stages)
    out = common.runs.create(args.out)

    common.seed.set_seed(args.seed, args.threads)
    study = search(pool, source, settings, args)
    rows = trial_rows(study, "search")
    span = best_range(study)
    print(f"{source.label}, mean AUC over {args.folds} twin-aware folds of train+val")
    print(f"range: lr {span['lr'][0]:.3g} to {span['lr'][1]:.3g}, wd {span['wd'][0]:.3g} to {span['wd'][1]:.3g}")
    if args.grid:
        grid = trial_rows(search_grid(study, pool, source, settings, args), "grid")
        rows += grid
        print(f"\nmean AUC ± standard error\n{grid_table(grid)}\n")
    stage = "grid" if args.grid else "search"
    complete = [row for row in rows if row["stage"] == stage and row["state"] == "complete"]
    if not complete:
        raise common.errors.UserError("no setting of the grid was completed, all diverged; give more --trials")
    best = max(complete, key=lambda row: row["auc"])
    save(out, settings, source, args, rows, best)
    print(f"best: lr {best['lr']:.3g}, wd {best['wd']:.3g}, AUC {best['auc']:.4f} ± {best['standard_error']:.4f}")
    print(f"next: python train.py --params {out}/best.json")


if __name__ == "__main__":
    common.cli.run(main)
