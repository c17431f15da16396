"""Search settings, by default learning rate and weight decay: Optuna finds the range, then a grid inside it decides.

A setting's score is the mean AUC over twin-aware folds of train+val; test is never read. The chosen setting is the
simplest within one standard error of the best. The search is kept in --storage: the same command goes on where it was
stopped, and run several times at once, here or on other machines, it shares the work.
"""

import math
import shlex
import sys
from dataclasses import replace
from functools import partial

import numpy as np

from common import crossvalidation, data, files, parallel, training, twins, weights
from common.errors import UserError
from common.intervals import mean_std
from common.metrics import auc
from common.model import device_of
from common.run import flags, folders, search, study
from common.run.provenance import provenance
from common.seed import set_seed
from common.settings import NATURAL, POSITIVE, POSITIVE_INT, Settings, number
from common.show import figures, tables

TOP_SHARE = 0.25  # of the search's trials, best first, span the range of the grid
SHOWN = 5  # of the search's trials, best first, in the table
GRID = ("lr", "wd")  # down and across


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--trials",
        type=POSITIVE_INT,
        default=30,
        metavar="N",
        help="trials of the search in all, by all workers and earlier sessions (default: %(default)s)",
    )
    parser.add_argument(
        "--search",
        type=search.names,
        default="lr,wd",
        metavar="NAMES",
        help=f"settings to search, of {', '.join(search.RANGES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--grid",
        type=NATURAL,
        default=3,
        metavar="G",
        help="then a grid of G x G values of lr and wd, if searched, inside the range; 0: none (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=number(int, 2, math.inf),
        default=3,
        metavar="K",
        help="twin-aware folds that score a setting (default: %(default)s)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="where the search is kept and shared: sqlite:///FILE, postgresql://…, mysql://…, journal:FILE or "
        "grpc://HOST:PORT (default: the SQLite file study.db in --out)",
    )
    parser.add_argument(
        "--study", default="breastmnist", metavar="NAME", help="name of the study (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs",
        type=POSITIVE_INT,
        default=1,
        metavar="J",
        help="workers to start here, which share --threads (default: %(default)s)",
    )
    parser.add_argument(
        "--heartbeat",
        type=POSITIVE,
        default=15,
        metavar="S",
        help="seconds between a worker's signs of life; without four, it is taken for dead (default: %(default)s)",
    )
    flags.add_run_flags(parser, "runs/tune", calibrates=False)
    return parser.parse_args()


def make_score(pool, settings, args):
    """The function that scores a trial of a stage: its mean AUC over the folds, reported fold by fold to the pruner."""
    import optuna

    device = device_of(args.device)
    groups = twins.find_groups(pool.images)
    fold_of = crossvalidation.assign_folds(pool.labels, groups, args.folds, args.seed)

    def score(stage: str, trial) -> float:
        tried = replace(settings, **{name: search.RANGES[name].suggest(trial, name) for name in args.search})
        scores = []
        for fold in range(args.folds):
            name, unseen = f"{stage} {study.place(trial)} fold {fold + 1}", fold_of == fold
            try:
                _, logits = crossvalidation.train_fold(pool, unseen, tried, args.seed + fold, device, name)
            except training.Diverged:
                raise optuna.TrialPruned() from None
            scores.append(float(auc(pool.labels[unseen], logits)))
            trial.set_user_attr("scores", scores)
            trial.report(float(np.mean(scores)), fold)
            if fold + 1 < args.folds and trial.should_prune():
                raise optuna.TrialPruned()
        return float(np.mean(scores))

    return score


def fixed_settings(settings, source, args) -> dict:
    """What all workers on a study must have in common; a file of weights counts by its content, wherever it lies."""
    fixed = {key: value for key, value in settings.as_dict().items() if key not in (*args.search, "patience")}
    if fingerprint := weights.weights_md5(settings.weights):
        fixed["weights"] = f"MD5 {fingerprint}"
    return fixed | {"search": list(args.search), "folds": args.folds, "seed": args.seed, "data_md5": source.md5}


def join(url, settings, source, args):
    """Open the study of stage one. Returns: (storage, study). Raises: UserError."""
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=study.STARTUP_TRIALS, n_warmup_steps=1)
    storage = study.open_storage(url)
    with study.explained(url, "cannot be read"):
        fixed = fixed_settings(settings, source, args)
        return storage, study.open_study(storage, args.study, fixed, pruner)


def open_grid(storage, fixed, top, args):
    """The study of stage two, and its cells, as the first worker to come here laid them out."""
    import optuna

    name = f"{args.study} grid {args.grid} after {args.trials}"
    grid = study.open_study(storage, name, fixed, optuna.pruners.NopPruner())
    if "cells" not in grid.user_attrs:
        grid.set_user_attr("cells", grid_cells(top, args))
    return grid, grid.user_attrs["cells"]


def gridded(args) -> list[str]:
    """The settings that the grid varies: none without a grid, or when neither is searched."""
    return [name for name in GRID if name in args.search and args.grid]


def span(top, name) -> tuple[float, float]:
    """The range of a setting among the best trials."""
    return min(row[name] for row in top), max(row[name] for row in top)


def grid_cells(top, args) -> list[dict]:
    """args.grid values of lr and of wd, as far as these are searched, evenly spaced in the logarithm inside the range,
    and the best trial's values of everything else; a grid of one is the best trial."""
    cells = [{name: top[0][name] for name in args.search}]
    for name in gridded(args) if args.grid > 1 else []:
        values = sorted({float(f"{x:.3g}") for x in np.geomspace(*span(top, name), args.grid)})
        cells = [cell | {name: value} for cell in cells for value in values]
    return cells


def trial_rows(stage: str, study, places: int, settings, args) -> list[dict]:
    """A row for each finished trial, for trials.csv; lr and wd are there also when they are not searched."""
    rows = []
    for trial in study.finished(study, places):
        scores = trial.user_attrs.get("scores", [])
        mean, std = mean_std(scores)
        row = {"stage": stage, "trial": study.place(trial), "state": trial.state.name.lower()}
        row |= {name: trial.params.get(name, getattr(settings, name)) for name in dict.fromkeys(GRID + args.search)}
        row |= {"auc": mean, "standard_error": std / math.sqrt(max(len(scores), 1))}
        rows.append(row | {f"fold_{i + 1}": scores[i] if i < len(scores) else None for i in range(args.folds)})
    return rows


def complete(rows, stage: str) -> list[dict]:
    """The complete rows of a stage, best first. Raises: UserError."""
    found = sorted((r for r in rows if r["stage"] == stage and r["state"] == "complete"), key=lambda r: -r["auc"])
    if not found:
        raise UserError(f"no setting of the {stage} was completed, all diverged; give more --trials")
    return found


def best_share(rows) -> list[dict]:
    """The best TOP_SHARE of the search, at least two: they span the range."""
    found = complete(rows, "search")
    return found[: max(2, math.ceil(TOP_SHARE * len(found)))]


def take_part(url, pool, source, settings, args) -> tuple[list[dict], dict]:
    """Both stages, shared with all other workers: TPE over the searched settings, hopeless ones pruned after whole
    folds; then the grid. Returns: (a row a trial, importances of the searched settings)."""
    storage, study = join(url, settings, source, args)
    score = make_score(pool, settings, args)
    with study.explained(url, "failed; the same command goes on from here"):
        study.work(study, [{}] * args.trials, partial(score, "trial"), args.seed, args.heartbeat)
        rows = trial_rows("search", study, args.trials, settings, args)
        if gridded(args):
            grid, cells = open_grid(storage, study.user_attrs["fixed"], best_share(rows), args)
            study.work(grid, cells, partial(score, "cell"), args.seed, args.heartbeat)
            rows += trial_rows("grid", grid, len(cells), settings, args)
        return rows, study.importances(study, args.search)


def choose(rows, args) -> tuple[dict, dict, float]:
    """(the chosen setting, the best by mean, standard error of a difference), of the grid if there is one, else of the
    search's best."""
    near = complete(rows, "grid") if gridded(args) else best_share(rows)
    scores = np.array([[row[f"fold_{i + 1}"] for i in range(args.folds)] for row in near])
    chosen, best, error = search.choose([{name: row[name] for name in args.search} for row in near], scores)
    return near[chosen], near[best], error


def text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def score_text(row) -> str:
    return f"{row['auc']:.4f} ± {row['standard_error']:.4f}"


def setting_text(row, args) -> str:
    """A line such as: lr 0.0003, wd 0.01, AUC 0.9012 ± 0.0103."""
    return ", ".join([*(f"{name} {text(row[name])}" for name in args.search), f"AUC {score_text(row)}"])


def search_table(rows, args) -> str:
    """The best trials of the search, and the range that the grid covers."""
    lines = [tables.line("mean AUC ± standard error", ["AUC", *args.search], 18)]
    for row in complete(rows, "search")[:SHOWN]:
        cells = [score_text(row), *(text(row[name]) for name in args.search)]
        lines.append(tables.line(f"trial {row['trial']}", cells, 18))
    if gridded(args):
        ends = ((name, *span(best_share(rows), name)) for name in gridded(args))
        lines.append("range: " + ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, low, high in ends))
    return "\n".join(lines)


def grid_axes(rows) -> tuple[list, list]:
    """The grid's learning rates and weight decays."""
    lrs, wds = (sorted({row[name] for row in rows}) for name in GRID)
    return lrs, wds


def grid_table(rows) -> str:
    """Mean AUC ± standard error, learning rates down, weight decays across."""
    lrs, wds = grid_axes(rows)
    cells = {(row["lr"], row["wd"]): score_text(row) for row in rows}
    header = tables.line("lr \\ wd", [f"{wd:.3g}" for wd in wds], 18)
    return "\n".join([header, *(tables.line(f"{lr:.3g}", [cells.get((lr, wd), "") for wd in wds], 18) for lr in lrs)])


def draw(rows, importances, chosen, best, source, out):
    """study.png: the score of every trial of the search; importance.png; grid.png: the grid as a heat map."""
    title = f"{source.label}, mean AUC over folds"
    found = {row["trial"]: row["auc"] for row in complete(rows, "search")}
    history = [found.get(i) for i in range(1 + max(row["trial"] for row in rows if row["stage"] == "search"))]
    figures.save(figures.search_history(history, title, "AUC"), out / "study.png")
    if importances:
        figures.save(figures.importances(importances, f"{source.label}, settings searched"), out / "importance.png")
    grid = [row for row in rows if row["stage"] == "grid"]
    if grid:
        lrs, wds = grid_axes(grid)
        scores, errors = np.full((2, len(lrs), len(wds)), np.nan)
        for row in grid:
            cell = lrs.index(row["lr"]), wds.index(row["wd"])
            scores[cell], errors[cell] = row["auc"], row["standard_error"]
        marked = [(lrs.index(row["lr"]), wds.index(row["wd"])) for row in (chosen, best)]
        figures.save(figures.heat_map(lrs, wds, scores, errors, *marked, title), out / "grid.png")


def made_with(source, args) -> dict:
    """`runs.provenance` with the storage's password left out of the command."""
    made = provenance(source, args.threads)
    if args.storage:
        words = [word.replace(args.storage, study.shown(args.storage)) for word in sys.argv]
        made["command"] = shlex.join(["python", *words])
    return made


def save(rows, importances, chosen, best, error, settings, source, args, out):
    """Write best.json, whose keys with an underscore are for people, trials.csv and the figures."""
    found = {"_auc": chosen["auc"], "_standard_error": chosen["standard_error"], "_folds": args.folds}
    found |= {"_rule": search.RULE, "_paired_error": error}
    found |= {"_best_by_mean": {key: best[key] for key in (*args.search, "auc", "standard_error")}}
    found |= {"_importances": importances, "_provenance": made_with(source, args)}
    files.write_csv(out / "trials.csv", rows, source.notice)
    draw(rows, importances, chosen, best, source, out)
    tuned = replace(settings, **{name: chosen[name] for name in args.search}).as_dict()
    files.write_json(out / "best.json", tuned | found, source.notice)


def report(rows, chosen, best, error, source, args) -> str:
    """The tables of both stages, and the choice."""
    lines = [
        f"{source.label}, mean AUC over {args.folds} twin-aware folds of train+val",
        "",
        search_table(rows, args),
        "",
    ]
    if gridded(args):
        lines += [grid_table([row for row in rows if row["stage"] == "grid"]), ""]
    lines.append(f"best by mean: {setting_text(best, args)}")
    known = "n/a, of a single setting" if math.isnan(error) else f"{error:.4f}"
    lines.append(f"standard error of a difference between settings, paired by fold: {known}")
    lines.append(f"chosen, the simplest within one of the best: {setting_text(chosen, args)}")
    return "\n".join(lines)


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    source = data.find(args.data, args.data_root, args.size, args.seed)
    pool = data.concatenate(*data.load(source, "train", "val"))
    weights.initial_model(source.size, settings)  # its errors come before anything is written
    if args.storage:
        join(args.storage, settings, source, args)  # what it refuses, it refuses before --out is made
    out = folders.make_output(args.out)

    threads = max(args.threads // args.jobs, 1)
    set_seed(args.seed, threads)
    task = args.storage or study.beside(out), pool, source, settings, args
    with parallel.companions(take_part, task, args.jobs - 1, args.seed, threads):
        rows, importances = take_part(*task)

    chosen, best, error = choose(rows, args)
    save(rows, importances, chosen, best, error, settings, source, args, out)
    print(report(rows, chosen, best, error, source, args))
    print(f"next: python train.py --params {out}/best.json")


if __name__ == "__main__":
    flags.run(main)
