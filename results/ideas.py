"""Ideas that were tried, each by twin-aware 5-fold cross-validation over train+val; test is never read.

    python -m results.ideas [NAME ...] --seeds 0 1 [--weights FILE] [--data-root DIR] [--workers N]
    python -m results.ideas --table

Each row of results/ideas.csv is one configuration at one seed, scored on all 624 out-of-fold predictions; a seed such
as 0+1 is the ensemble, the mean of those seeds' out-of-fold logits. Rows that are there already are not run again.
Meant for a GPU, which several --workers can share (results/graph_lab.py says why it is fast); results/ideas.md has the
table and what it says. The table gives a configuration's gain over the base of its input size on the same seeds, which
means on the same folds.
"""

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch

from common import cli, data, metrics, parallel, settings, twins
from common.calibration import negative_log_likelihood
from common.folds import assign_folds
from common.model import device_of
from common.seed import set_seed
from results import graph_lab, log
from results.graph_lab import Options
from results.log import spread

TABLE = "ideas.csv"
FOLDS = 5

VIEWS = {"view": 128, "epochs": 30}
CONFIGURATIONS = {
    "base": Options(),
    "mean of nine shifts": Options(shifts=True),
    # input and network
    "views from 128 px": Options(view=128),
    "upsampled to 56": Options(upsample=56),
    "upsampled to 56, bicubic": Options(upsample=56, bicubic=True),
    "upsampled to 112": Options(upsample=112),
    "upsampled to 112, four stages": Options(upsample=112, stages=4),
    "upsampled to 112, four stages, views from 128 px, 30 epochs, mixup 0.2": Options(
        upsample=112, stages=4, **VIEWS, mixup=0.2
    ),
    "each image standardised": Options(standardise=True),
    "two stages": Options(stages=2),
    "four stages": Options(stages=4),
    "no max pooling": Options(pool=False),
    "stem stride 2": Options(stride=2),
    "stem stride 2, no max pooling": Options(stride=2, pool=False),
    "head: GeM pooling": Options(head="GeM"),
    "head: max pooling": Options(head="max"),
    "head: average and max pooling": Options(head="both"),
    "head: last two stages": Options(head="last two stages"),
    "from scratch, 30 epochs": Options(pretrained=False, epochs=30),
    # regularisation
    "dropout 0.3": Options(dropout=0.3),
    "stochastic depth 0.1": Options(stochastic_depth=0.1),
    "stochastic depth 0.2": Options(stochastic_depth=0.2),
    "frozen batch norm": Options(frozen_norm=True),
    "weight decay 0": Options(wd=0.0),
    "weight decay 0.05": Options(wd=0.05),
    "weight decay 0.2": Options(wd=0.2),
    # optimisation
    "SAM 0.05": Options(sam=0.05),
    "SAM 0.1": Options(sam=0.1),
    "layer-wise rate decay 0.6": Options(layer_decay=0.6),
    "layer-wise rate decay 0.8": Options(layer_decay=0.8),
    "head's rate times 10": Options(head_rate=10.0),
    "14 epochs": Options(epochs=14),
    "30 epochs": Options(epochs=30),
    "40 epochs": Options(epochs=40),
    "lr 2e-4": Options(lr=2e-4),
    "lr 5e-4": Options(lr=5e-4),
    "lr 8e-4": Options(lr=8e-4),
    "batch 16": Options(batch=16),
    "batch 64": Options(batch=64),
    "warm-up 0.05": Options(warmup=0.05),
    "warm-up 0.4": Options(warmup=0.4),
    "weight average 0.95": Options(ema=0.95),
    "weight average 0.99": Options(ema=0.99),
    # loss
    "label smoothing 0.1": Options(label_smoothing=0.1),
    "malignant weighs 1.5": Options(malignant_weight=1.5),
    "twins of opposite labels weigh 0.5": Options(conflict_weight=0.5),
    "twins of opposite labels left out": Options(conflict_weight=0.0),
    # augmentation
    "no mixup": Options(mixup=0.0),
    "mixup 0.2": Options(mixup=0.2),
    "mixup 1": Options(mixup=1.0),
    "mixup 2": Options(mixup=2.0),
    "cutmix 0.5": Options(cutmix=0.5),
    "no erasing": Options(erasing=0.0),
    "erasing 0.5": Options(erasing=0.5),
    "erasing 0.5, sides to 0.6": Options(erasing=0.5, erasing_side=0.6),
    "rotation 5": Options(degrees=5.0),
    "rotation 20": Options(degrees=20.0),
    "scale 0.05": Options(scale=0.05),
    "scale 0.3": Options(scale=0.3),
    "aspect 0.2": Options(aspect=0.2),
    "shift 0.05": Options(shift=0.05),
    "shift 0.2": Options(shift=0.2),
    "no gain": Options(contrast=0.0, brightness=0.0),
    "contrast 0.4": Options(contrast=0.4),
    "gamma 0.3": Options(gamma=0.3),
    "noise 0.2": Options(noise=0.2),
    # several at once, trained on views from 128 px
    "views from 128 px, 30 epochs": Options(**VIEWS),
    "views from 128 px, 30 epochs, mixup 0.2": Options(**VIEWS, mixup=0.2),
    "views from 128 px, 30 epochs, no erasing": Options(**VIEWS, erasing=0.0),
    "views from 128 px, 30 epochs, label smoothing 0.1": Options(**VIEWS, label_smoothing=0.1),
    "views from 128 px, 30 epochs, dropout 0.3": Options(**VIEWS, dropout=0.3),
    "views from 128 px, 30 epochs, weight decay 0.2": Options(**VIEWS, wd=0.2),
    "views from 128 px, 30 epochs, head's rate times 10, weight decay 0.1": Options(**VIEWS, head_rate=10.0, wd=0.1),
    "views from 128 px, 30 epochs, lr 2e-4": Options(**VIEWS, lr=2e-4),
    "views from 128 px, 40 epochs, lr 2e-4": Options(view=128, epochs=40, lr=2e-4),
    "views from 128 px, 40 epochs": Options(view=128, epochs=40),
    # larger images
    "64 px": Options(size=64),
    "64 px, 30 epochs": Options(size=64, epochs=30),
    "64 px, 30 epochs, lr 2e-4": Options(size=64, epochs=30, lr=2e-4),
    "64 px, four stages": Options(size=64, stages=4),
    "64 px, views from 128 px": Options(size=64, view=128),
    "64 px, views from 128 px, 30 epochs": Options(size=64, **VIEWS),
    "64 px, views from 128 px, 30 epochs, four stages": Options(size=64, **VIEWS, stages=4),
    "128 px": Options(size=128),
    "128 px, 30 epochs": Options(size=128, epochs=30),
    "128 px, four stages": Options(size=128, stages=4),
    "128 px, four stages, 30 epochs": Options(size=128, stages=4, epochs=30),
}


@dataclass(frozen=True)
class Lesson:
    """Knowledge distillation: teachers, and students that match the mean of their logits on the same augmented view
    (Beyer et al., CVPR 2022), with its share of the loss. The teachers of a fold train on its training images only."""

    teacher: Options
    students: dict[str, Options]
    teachers: int = 1


# By the name of the teacher's own row.
LESSONS = {
    "teacher of 128 px": Lesson(
        Options(size=128),
        {
            "distilled 1.0 from 128 px": Options(**VIEWS, distillation=1.0),
            "distilled 0.7 from 128 px": Options(**VIEWS, distillation=0.7),
        },
    ),
    "two teachers of 64 px": Lesson(
        Options(size=64, view=128, epochs=24),
        {
            "distilled 1.0 from 64 px": Options(**VIEWS, distillation=1.0),
            "distilled 0.7 from 64 px": Options(**VIEWS, distillation=0.7),
        },
        teachers=2,
    ),
    "teacher of 128 px, four stages": Lesson(
        Options(size=128, stages=4),
        {
            "distilled 0.7 from 128 px, four stages": Options(**VIEWS, mixup=0.2, distillation=0.7),
            "distilled 1.0 from 128 px, four stages; 60 epochs": Options(view=128, epochs=60, distillation=1.0),
            "distilled 0.7 from 128 px, four stages; upsampled to 112, four stages": Options(
                view=128, mixup=0.2, upsample=112, stages=4, distillation=0.7
            ),
        },
    ),
}


@dataclass(frozen=True)
class Bench:
    """What is the same for every configuration: the weights file, the data's folder and the device, by name."""

    weights: str
    data_root: str | None
    device: str


@lru_cache
def read_pool(data_root: str | None, size: int) -> data.Split:
    """BreastMNIST's train and val images of a size. Raises: UserError."""
    return data.join(*data.load(data.find("breastmnist", data_root, size), "train", "val"))


@lru_cache
def find_groups(data_root: str | None) -> np.ndarray:
    """The pool's groups of near-duplicates, int [n]."""
    return twins.find_groups(read_pool(data_root, 28).images)


def prepare(options: Options, bench: Bench, teachers=()) -> graph_lab.Lab:
    """The laboratory of one configuration. Raises: UserError."""
    pools = (read_pool(bench.data_root, size) for size in (options.size, options.view or options.size))
    return graph_lab.prepare(
        options, bench.weights, *pools, find_groups(bench.data_root), device_of(bench.device), teachers
    )


def train_fold(lab: graph_lab.Lab, held_out: np.ndarray, seed: int) -> np.ndarray:
    """Train on all images but the held-out, bool [n]. Returns: their logits."""
    graph_lab.fit(lab, ~held_out, seed)
    return graph_lab.predict(lab, np.flatnonzero(held_out))


def teach(name: str, fold: np.ndarray, seed: int, bench: Bench) -> dict[str, np.ndarray]:
    """Cross-validate a lesson. Returns: out-of-fold logits [n] of the teachers' mean and of each student, by name."""
    lesson = LESSONS[name]
    lab = prepare(lesson.teacher, bench)
    teachers = [copy.deepcopy(lab.network).eval().requires_grad_(False) for _ in range(lesson.teachers)]
    students = {student: prepare(options, bench, teachers) for student, options in lesson.students.items()}
    logits = {row: np.zeros(len(fold)) for row in (name, *students)}
    for f in range(FOLDS):
        held_out, taught = fold == f, []
        for i, teacher in enumerate(teachers):
            taught.append(train_fold(lab, held_out, 1000 * seed + 100 * (i + 1) + f))
            teacher.load_state_dict(lab.network.state_dict())  # in place: the students' graphs know its memory
        logits[name][held_out] = np.mean(taught, 0)
        for student, learner in students.items():
            logits[student][held_out] = train_fold(learner, held_out, 1000 * seed + f)
    return logits


def measure(experiment: str, seed: int, bench: Bench) -> dict[str, np.ndarray]:
    """Cross-validate one experiment. Returns: out-of-fold logits [n] by the name of the row. Raises: UserError."""
    graph_lab.set_precision()
    torch.cuda.empty_cache()  # of the experiment before: other workers share the GPU
    fold = assign_folds(read_pool(bench.data_root, 28).labels, find_groups(bench.data_root), FOLDS, seed)
    if experiment in LESSONS:
        return teach(experiment, fold, seed, bench)
    lab, logits = prepare(CONFIGURATIONS[experiment], bench), np.zeros(len(fold))
    for f in range(FOLDS):
        logits[fold == f] = train_fold(lab, fold == f, 1000 * seed + f)
    return {experiment: logits}


def rows_of(experiment: str) -> list[str]:
    """The names of the rows that an experiment makes."""
    return [experiment, *LESSONS[experiment].students] if experiment in LESSONS else [experiment]


def differences(options: Options, **more) -> tuple[int, str]:
    """The input size, and as compact JSON what else differs from the base, with `more`."""
    base = asdict(Options(size=options.size))
    changed = {key: value for key, value in asdict(options).items() if value != base[key]}
    return options.size, json.dumps(changed | more, separators=(",", ":"))


def describe(name: str) -> tuple[int, str]:
    """`differences` of a row."""
    for teacher, lesson in LESSONS.items():
        if name == teacher:
            return differences(lesson.teacher, teachers=lesson.teachers)
        if name in lesson.students:
            return differences(lesson.students[name], teacher=teacher)
    return differences(CONFIGURATIONS[name])


def score(name: str, seeds: Iterable[int], labels: np.ndarray, logits: np.ndarray, device: str) -> dict:
    """A row of the table. labels, logits: [n]; for several seeds the mean of their logits."""
    size, options = describe(name)
    measures = {
        "auc": metrics.auc(labels, logits),
        "accuracy": metrics.accuracy(labels, logits >= 0),
        "nll": negative_log_likelihood(labels, logits),
    }
    row = {"name": name, "size": size, "options": options, "seed": "+".join(map(str, sorted(seeds)))}
    return row | {key: f"{value:.6f}" for key, value in measures.items()} | {"device": device}


def keep(row: dict) -> None:
    """Add a row to the file, unless its configuration and seed are there already."""
    if (row["name"], row["seed"]) in {(old["name"], old["seed"]) for old in log.read(TABLE)}:
        return
    log.append(TABLE, row)
    print(f"{row['name']:<56} {row['seed']:<8} AUC {row['auc']}  accuracy {row['accuracy']}", flush=True)


def split_ensembles(rows: list[dict]) -> tuple[dict[str, dict], dict[str, dict]]:
    """{seed: row} of the single seeds, and of the ensembles."""
    single, ensembles = {}, {}
    for row in rows:
        (ensembles if "+" in row["seed"] else single)[row["seed"]] = row
    return single, ensembles


def mean_auc(rows: list[dict]) -> float:
    """Over the single seeds."""
    return float(np.mean([float(row["auc"]) for row in split_ensembles(rows)[0].values()]))


def table_line(name: str, rows: list[dict], base: list[dict]) -> list[str]:
    """One line of the Markdown table, from the rows of a configuration and of its base."""
    (single, ensembles), (base_single, _) = split_ensembles(rows), split_ensembles(base)
    column = {key: [float(row[key]) for row in single.values()] for key in ("auc", "accuracy", "nll")}
    gains = [float(row["auc"]) - float(base_single[seed]["auc"]) for seed, row in single.items() if seed in base_single]
    gain = spread(gains, "+.3f") if gains and rows is not base else ""
    largest = max(ensembles, key=lambda seeds: seeds.count("+"), default=None)
    ensemble = f"{float(ensembles[largest]['auc']):.3f}" if largest else ""
    means = [f"{np.mean(column[key]):.3f}" for key in ("accuracy", "nll")]
    return [name, str(len(single)), spread(column["auc"], ".3f"), gain, *means, ensemble]


def markdown_table(rows: list[dict], size: int) -> str:
    """The configurations of one input size, highest mean AUC over seeds first."""
    base = next(name for name, options in CONFIGURATIONS.items() if options == Options(size=size))
    by_name = {row["name"]: [] for row in rows if row["size"] == str(size)}
    for row in rows:
        by_name.get(row["name"], []).append(row)
    order = sorted(by_name, key=lambda name: mean_auc(by_name[name]), reverse=True)
    header = f"{size}×{size} | seeds | AUC | minus {base} | accuracy | NLL | AUC of the ensemble"
    return log.markdown(header, [table_line(name, by_name[name], by_name.get(base, [])) for name in order])


def parse_args():
    parser = cli.Parser("Cross-validate ideas on a GPU, and print what came out.")
    experiments = [*CONFIGURATIONS, *LESSONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help="configurations, or teachers with their students")
    parser.add_argument("--seeds", nargs="+", type=settings.NATURAL, default=[0], metavar="N", help="default: 0")
    parser.add_argument(
        "--weights", default="imagenet", metavar="FILE", help="published weights (default: %(default)s)"
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder of MedMNIST's files (default: $MEDMNIST_ROOT)")
    parser.add_argument("--workers", type=settings.POSITIVE_INT, default=1, metavar="N", help="experiments at once")
    parser.add_argument("--table", action="store_true", help="print the table from ideas.csv, and run nothing")
    cli.add_machine_flags(parser)
    args = parser.parse_args()
    if unknown := set(args.names) - set(experiments):
        parser.error(f"{', '.join(sorted(unknown))}: no such experiment; results/ideas.py lists them")
    args.names = args.names or experiments
    return args


def main():
    args = parse_args()
    if args.table:
        rows = log.read(TABLE)
        print("\n\n".join(markdown_table(rows, size) for size in sorted({int(row["size"]) for row in rows})))
        return
    set_seed(0, args.threads)
    bench = Bench(args.weights, args.data_root, args.device)
    device = torch.cuda.get_device_name() if device_of(args.device).type == "cuda" else "cpu"
    there = {(row["name"], row["seed"]) for row in log.read(TABLE)}
    tasks = [
        (name, seed, bench)
        for seed in dict.fromkeys(args.seeds)
        for name in dict.fromkeys(args.names)
        if not all((row, str(seed)) in there for row in rows_of(name))
    ]
    labels, by_seed = read_pool(args.data_root, 28).labels, {}
    found = parallel.run(measure, tasks, args.workers, 0, max(args.threads // args.workers, 1))
    for (_, seed, _), logits in zip(tasks, found):
        for name, values in logits.items():
            by_seed.setdefault(name, {})[seed] = values
            keep(score(name, [seed], labels, values, device))
    for name, values in by_seed.items():
        if len(values) > 1:
            keep(score(name, values, labels, np.mean(list(values.values()), 0), device))


if __name__ == "__main__":
    cli.run(main)
