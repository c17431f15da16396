"""The table and the figure of docs/results.md, made from the committed files of results/.

    python -m results.table      prints the table, in Markdown, and writes results/results.png

ours.csv says what a row of ours shows of a file: a split, with intervals, or a list of scores, with mean ± standard
deviation. published.csv has the others' results on test, with a standard deviation over seeds where they tell it.
"""

import json

from matplotlib.figure import Figure

from common.show import figures, tables
from results import card, log, measure

METRICS = ("accuracy", "auc")
# What the figure shows of ours, an input side each.
BY_SIDE = ("crossval_28_repeated.json", "crossval_64.json", "crossval_128.json")
PLACES = {"breast/images.csv": "BrEaST", "busbra/images.csv": "BUS-BRA", "breast": "BrEaST", "busbra": "BUS-BRA"}


def read(file: str) -> dict:
    """A metrics.json; of seeds.csv as much as there is of one, with a list of scores for each split."""
    if file != "seeds.csv":
        return json.loads((log.FOLDER / file).read_text(encoding="utf-8"))
    (command, rows), *_ = measure.configurations("seeds").items()
    splits: dict[str, list] = {}
    for split in ("val", "test", "clean_test"):
        splits[split] = [{metric: float(row[f"{split}_{metric}"]) for metric in METRICS} for row in rows]
    return {"provenance": rows[0] | {"command": command, "data": {"size": 28}}, "splits": splits}


def mean_and_std(row: dict, metric: str) -> tuple[float, float]:
    """Of a row of published.csv; the standard deviation is nan where it is not published."""
    return float(row[metric]), float(row[f"{metric}_std"] or "nan")


def part_of(run: dict, part: str) -> dict | list[dict]:
    """What a file says of a part: a split, "SPLIT, HOSPITAL", or folds or repeats."""
    if part in run["splits"] or part in run:
        return run["splits"].get(part) or run[part]
    on, hospital = part.split(", ")
    about = {"on": on, "hospital": hospital, "unit": "image", "subset": "all", "threshold_name": "standard"}
    return next(entry for entry in run["results"] if about.items() <= entry.items())


def score(scores: dict | list[dict], metric: str) -> str:
    """Of one run with its interval, of several with their spread."""
    return log.spread([one[metric] for one in scores]) if isinstance(scores, list) else log.cell(scores, metric)


def table() -> str:
    """Ours, each with its full command, precision and first digits of the weights' MD5 unless they are those of the row
    above; then what others published."""
    rows, file = [], ""
    for row in log.read("ours.csv"):
        run = read(row["file"])
        made = run["provenance"]
        weights = f"weights {made['weights_md5'][:8]}" if made["weights_md5"] else "downloaded weights"
        source = f"`{made['command']}`, {made['precision']}, {weights}" if row["file"] != file else ""
        scores, file = part_of(run, row["part"]), row["file"]
        rows.append([row["what"], str(made["data"]["size"]), source, *(score(scores, metric) for metric in METRICS)])
    for row in log.read("published.csv"):
        cells = [tables.plus_minus(*mean_and_std(row, metric)) for metric in METRICS]
        rows.append([f"published: {row['what']}, test", row["input"], row["source"], *cells])
    return log.markdown("what | input | command or source | accuracy | AUC", rows)


def at_hospitals() -> dict:
    """{fp32 file: {hospital: (AUC, low, high)}}, its own test images first."""
    found: dict = {}
    for row in log.read("hospitals.csv"):
        by_image_and_alone = row["unit"] == "image" and row["boxes"] != "given"
        if ".int8" not in row["file"] and row["trained_on"] == "0" and by_image_and_alone:
            test = json.loads(card.metadata(row["file"])["metrics"])["test"]
            points = found.setdefault(row["file"], {"own test": log.limits(test, "auc")})
            points[PLACES.get(row["set"], row["set"])] = log.limits(row, "auc")
    return found


def draw() -> Figure:
    """What the table and hospitals.csv say, at one look."""
    ours: dict = {"ours, out of fold, 95 % interval": {}, "ours, on test, 95 % interval": {}}
    for run in map(read, BY_SIDE):
        for points, split in zip(ours.values(), ("out_of_fold", "test")):
            points[run["provenance"]["data"]["size"]] = log.limits(run["splits"][split], "auc")
    others = [(row["in_figure"], int(row["input"]), *mean_and_std(row, "auc")) for row in log.read("published.csv")]
    title = "AUC: of pairs, the share in which the malignant image gets the higher probability"
    return figures.results(ours, others, at_hospitals(), title)


def main():
    print(table())
    figures.save(draw(), log.FOLDER / "results.png")


if __name__ == "__main__":
    main()
