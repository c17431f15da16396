"""Export a run as one .onnx file, from the raw image to the calibrated probability. It is left behind only if every
check holds: onnxruntime agrees with PyTorch on all images, the graph's preparation with Pillow's, int8 with fp32."""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

import common


def parse_args():
    parser = common.cli.Parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="a folder that train.py or crossval.py wrote")
    parser.add_argument("--out", metavar="FILE.onnx", help="the file to write (default: model.onnx in RUN)")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write FILE.int8.onnx, a quarter of the size and twice as fast; refused, with everything else, if it "
        "answers otherwise than fp32 (default: off)",
    )
    parser.add_argument(
        "--benchmark", action="store_true", help="also measure latency, load time and memory (default: off)"
    )
    common.cli.add_data_flags(parser, run=True)
    common.cli.add_machine_flags(parser, device=False)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(".onnx"):
        parser.error(f"argument --out: {args.out!r} does not end in .onnx")
    return args


def export(run, about, path, splits, expected, threads) -> tuple:
    """Write the fp32 file and check it. expected: {split: P(malignant) by PyTorch}.

    Returns: (network, text of the checks, their figures). Raises: UserError.
    """
    size = run.data["size"]
    network = common.onnxgraph.export_network(run.predictor, size)
    common.onnxgraph.write(common.onnxgraph.join(network, size), about, path)
    file = checked_file(path)
    model = common.onnxfile.load(path, threads)
    rows = common.parity.of_splits(model, splits, expected)
    sizes = common.parity.of_sizes(model, common.onnxgraph.preparation(network, size), size)
    common.parity.require(rows + sizes)
    text = f"PyTorch against onnxruntime\n{common.parity.text(rows)}\n\n"
    text += f"phantoms of other sizes, prepared in the graph against Pillow\n{common.parity.sizes_text(sizes)}"
    figures = {
        "file": file,
        "tolerance": common.parity.TOLERANCE,
        "auc_tolerance": common.parity.AUC_TOLERANCE,
        "rows": [asdict(row) for row in rows],
        "grey_tolerance": common.parity.GREY_TOLERANCE,
        "prepared_tolerance": common.parity.PREPARED_TOLERANCE,
        "sizes": [asdict(row) for row in sizes],
    }
    return network, text, figures


def checked_file(path) -> dict:
    """The ONNX checker's figures. Raises: UserError when it, or onnxruntime's web build, could not take the file."""
    file = common.onnxgraph.check(path)
    if file["external_data"] or file["operator_sets"] != ["ai.onnx"]:
        raise common.errors.UserError(f"the file is not one of standard operators, nothing is written: {file}")
    return file


def export_int8(network, size, about, path, splits, expected, threads) -> tuple:
    """Write the int8 file and check it. Returns: (text of the checks, their figures). Raises: UserError."""
    quantization, train = common.quantization, splits["train"].images
    quantized = quantization.quantize(network, train)
    line = quantization.straight_line(*(quantization.logits(n, train, threads) for n in (quantized, network)))
    model = common.onnxgraph.join(quantized, size, *line)
    common.onnxgraph.write(model, about, path)
    rows = agreement(common.onnxfile.load(path, threads), splits, expected)
    figures = quantization.figures(rows, line)
    about = about | {"quantization": json.dumps(common.runs.as_json(figures)), "metrics_of": "the fp32 file"}
    common.onnxgraph.write(model, about, path)
    return f"int8 against fp32\n{quantization.text(rows)}", {"file": checked_file(path)} | figures


def agreement(model, splits, expected) -> list:
    """How an int8 model agrees with the run on each split, and on train and val together. Raises: UserError where that
    is not enough."""
    answers = {
        name: (split.labels, expected[name], model.probabilities(split.images)) for name, split in splits.items()
    }
    answers[common.quantization.DECIDING] = map(np.concatenate, zip(answers["train"], answers["val"]))
    thresholds = common.parity.thresholds(model.calibration)
    rows = [common.quantization.compare(name, *answer, thresholds) for name, answer in answers.items()]
    if not all(row.acceptable for row in rows):
        raise common.errors.UserError(common.quantization.refusal(rows))
    return rows


def main():
    args = parse_args()
    common.seed.set_seed(0, args.threads)
    run = common.runs.load(args.run)
    source = common.data.find_again(run.data, args.data, args.data_root, args.size, args.seed)
    splits = dict(zip(common.data.SPLITS, common.data.load(source, *common.data.SPLITS)))
    out = Path(args.out or run.path / "model.onnx")
    int8 = out.with_suffix(".int8.onnx")
    about = common.onnxgraph.metadata(run, common.runs.read_metrics(run.path))
    common.runs.create(out.parent)

    with ExitStack() as whole:  # the files take their names together, after the last check
        parity_file = whole.enter_context(common.runs.replacing(out.with_name("parity.json")))
        beside = {"fp32": whole.enter_context(common.runs.replacing(out))}
        expected = {name: run.probabilities(split.images) for name, split in splits.items()}
        network, text, figures = export(run, about, beside["fp32"], splits, expected, args.threads)
        texts, parity = [f"{source.label}, {text}"], {"model": out.name} | figures
        if args.int8:
            beside["int8"] = whole.enter_context(common.runs.replacing(int8))
            text, figures = export_int8(
                network, run.data["size"], about, beside["int8"], splits, expected, args.threads
            )
            texts, parity = [*texts, text], parity | {"int8": {"model": int8.name} | figures}
        if args.benchmark:
            measured = common.benchmark.measure(beside, run, splits["train"].images)
            texts, parity = [*texts, common.benchmark.text(measured)], parity | {"benchmark": measured}
        parity |= {"provenance": common.runs.provenance(source, args.threads)}
        common.runs.write_json(parity_file, parity, source)
    if int8.exists() and not args.int8:
        print(f"warning: {int8} is of an earlier export; --int8 makes it anew", file=sys.stderr)
    print("\n\n".join(texts))
    for file in (out, int8) if args.int8 else (out,):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    common.cli.run(main)
