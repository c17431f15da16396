"""Print the tables of lesion.csv and looks.csv, in Markdown.

    python -m results.lesion

The program that measured lesion.csv is `git show 79440c6:results/lesion.py`; that of looks.csv is
`git show 69383a3:results/looks.py`.
"""

from common.run import flags
from results import log

TABLES = (
    (["iou", "iou_below_0.3", "centre_inside", "side_ratio"], "IoU | IoU below 0.3 | centre inside | side"),
    (["auc_lesions", "auc", "specificity_95_lesions"], "AUC of lesions | AUC of all | specificity of lesions"),
)
AUCS = ["frame", "window_found", "both_found", "window_given", "both_given"]


def table(columns: list[str], header: str) -> str:
    """Return mean ± standard deviation over seeds for each candidate and way; means of seeds are separate rows."""
    found: dict[tuple, dict] = {}
    for row in log.read("lesion.csv"):
        if row[columns[0]]:
            many = "mean of " + row["seed"] if "+" in row["seed"] else "one"
            cells = found.setdefault((row["name"], row["boxes"], many), {})
            for column in columns:
                if row[column]:
                    cells.setdefault((row["trained_on"], column), []).append(float(row[column]))
    lines = []
    for (name, boxes, many), cells in found.items():
        values = [log.spread(cells[way, c]) if (way, c) in cells else "" for way in ("busi", "breast") for c in columns]
        lines.append([name, boxes, many, *values])
    ways = " | ".join(f"{way}: {header}" for way in ("BUSI to BrEaST", "BrEaST to BUSI"))
    return log.markdown(f"candidate | boxes | seeds | {ways}", lines)


def looks_table() -> str:
    """Return the AUC of each look alone and of the mean of both, at a hospital that the model has not seen."""
    header = "model | scored on | frame | window, box found | both, box found | window, box given | both, box given"
    rows = [
        [row["name"], row["scored_on"], *(log.spread([float(row[name])]) for name in AUCS)]
        for row in log.read("looks.csv")
    ]
    return log.markdown(header, rows)


def main():
    log.parser(__doc__).parse_args()
    print(*(table(columns, header) for columns, header in TABLES), looks_table(), sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
