"""Export a run as one .onnx file, which is left behind only if onnxruntime agrees with PyTorch on every image."""

from pathlib import Path

import numpy as np

import common

TOLERANCE = 1e-5  # of a probability, between PyTorch and onnxruntime in fp32
BATCHES = (1, 64)


def parse_args():
    parser = common.cli.Parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a folder that train.py or crossval.py wrote")
    parser.add_argument("--out", metavar="FILE.onnx", help="the file to write (default: model.onnx in RUN)")
    common.cli.add_data_flags(parser, run=True)
    common.cli.add_machine_flags(parser, device=False)
    return parser.parse_args()


def compare(run, model, images, split) -> list[dict]:
    """Largest difference of probability and number of different labels, at every batch size."""
    expected = run.probabilities(images)
    rows = []
    for batch in BATCHES:
        found = model.probabilities(images, batch)
        labels_differ = sum(int(np.sum((found >= t) != (expected >= t))) for t in (0.5, run.calibration.threshold))
        rows.append(
            {
                "split": split,
                "n": len(images),
                "batch": batch,
                "max_difference": float(np.abs(found - expected).max()),
                "labels_differ": labels_differ,
            }
        )
    return rows


def check(run, file, source, threads) -> list[dict]:
    """Reload the file from disk and compare it with the run on all images. Raises: UserError where they disagree."""
    model = common.onnxfile.load(file, threads)
    rows = []
    for name in common.data.SPLITS:
        (split,) = common.data.load(source, name)
        rows += compare(run, model, split.images, name)
    for row in rows:
        if not row["max_difference"] <= TOLERANCE or row["labels_differ"]:
            raise common.errors.UserError(f"onnxruntime disagrees with PyTorch, nothing is written: {row}")
    return rows


def parity_text(rows) -> str:
    header = f"{'split':<8}{'images':>8}{'batch':>8}{'max |difference|':>20}{'labels differ':>16}"
    return "\n".join(
        [header]
        + [
            f"{r['split']:<8}{r['n']:>8}{r['batch']:>8}{r['max_difference']:>20.2e}{r['labels_differ']:>16}"
            for r in rows
        ]
    )


def main():
    args = parse_args()
    common.seed.set_seed(0, args.threads)
    run = common.runs.load(args.run)
    source = common.data.find_again(run.data, args.data, args.data_root, args.size, args.seed)
    out = Path(args.out or run.path / "model.onnx")
    metrics = common.runs.read_json(run.path / "metrics.json")["splits"]

    with common.runs.replacing(out) as beside:
        common.onnxfile.write(run, metrics, beside)
        rows = check(run, beside, source, args.threads)
    parity = {
        "model": out.name,
        "tolerance": TOLERANCE,
        "rows": rows,
        "provenance": common.runs.provenance(source, args.threads),
    }
    common.runs.write_json(out.with_name("parity.json"), parity, source)
    print(f"{source.label}, PyTorch against onnxruntime\n{parity_text(rows)}")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, largest difference {max(r['max_difference'] for r in rows):.1e}")


if __name__ == "__main__":
    common.cli.run(main)
