"""Export a run as one .onnx file, from the raw image to the calibrated probability. It is left behind only if every
check holds: onnxruntime agrees with PyTorch on all images, the graph's preparation with Pillow's, int8 with fp32."""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from common import data, files
from common.deploy import graph, int8, latency, onnxfile, parity
from common.errors import UserError
from common.run import flags, folders
from common.run.provenance import provenance
from common.seed import set_seed


def parse_args():
    parser = flags.Parser(__doc__)
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
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(".onnx"):
        parser.error(f"argument --out: {args.out!r} does not end in .onnx")
    return args


def export(run, about, path, splits, expected, threads) -> tuple:
    """Write the fp32 file and check it. expected: {split: P(malignant) by PyTorch}.

    Returns: (network, text of the checks, their figures). Raises: UserError.
    """
    size = run.data["size"]
    network = graph.export_network(run.predictor, size)
    graph.write(graph.join(network, size), about, path)
    file = checked_file(path)
    model = onnxfile.load(path, threads)
    rows = parity.of_splits(model, splits, expected)
    sizes = parity.of_sizes(model, graph.preparation(network, size), size)
    parity.require(rows + sizes)
    text = f"PyTorch against onnxruntime\n{parity.text(rows)}\n\n"
    text += f"phantoms of other sizes, prepared in the graph against Pillow\n{parity.sizes_text(sizes)}"
    figures = {
        "file": file,
        "tolerance": parity.TOLERANCE,
        "auc_tolerance": parity.AUC_TOLERANCE,
        "rows": [asdict(row) for row in rows],
        "grey_tolerance": parity.GREY_TOLERANCE,
        "prepared_tolerance": parity.PREPARED_TOLERANCE,
        "sizes": [asdict(row) for row in sizes],
    }
    return network, text, figures


def checked_file(path) -> dict:
    """The ONNX checker's figures. Raises: UserError when it, or onnxruntime's web build, could not take the file."""
    file = graph.check(path)
    if file["external_data"] or file["operator_sets"] != ["ai.onnx"]:
        raise UserError(f"the file is not one of standard operators, nothing is written: {file}")
    return file


def export_int8(network, size, about, path, splits, expected, threads) -> tuple:
    """Write the int8 file and check it. Returns: (text of the checks, their figures). Raises: UserError."""
    train = splits["train"].images
    quantized = int8.quantize(network, train)
    line = int8.straight_line(*(int8.logits(n, train, threads) for n in (quantized, network)))
    model = graph.join(quantized, size, *line)
    graph.write(model, about, path)
    rows = agreement(onnxfile.load(path, threads), splits, expected)
    figures = int8.figures(rows, line)
    about = about | {"quantization": json.dumps(files.as_json(figures)), "metrics_of": "the fp32 file"}
    graph.write(model, about, path)
    return f"int8 against fp32\n{int8.text(rows)}", {"file": checked_file(path)} | figures


def agreement(model, splits, expected) -> list:
    """How an int8 model agrees with the run on each split, and on train and val together. Raises: UserError where that
    is not enough."""
    answers = {
        name: (split.labels, expected[name], model.probabilities(split.images)) for name, split in splits.items()
    }
    answers[int8.DECIDING] = map(np.concatenate, zip(answers["train"], answers["val"]))
    thresholds = parity.thresholds(model.calibration)
    rows = [int8.compare(name, *answer, thresholds) for name, answer in answers.items()]
    if not all(row.acceptable for row in rows):
        raise UserError(int8.refusal(rows))
    return rows


def main():
    args = parse_args()
    set_seed(0, args.threads)
    run = folders.load(args.run)
    source = data.find_again(run.data, args.data, args.data_root, args.size, args.seed)
    splits = dict(zip(data.SPLITS, data.load(source, *data.SPLITS)))
    out = Path(args.out or run.path / "model.onnx")
    quantized = out.with_suffix(".int8.onnx")
    about = graph.metadata(run, folders.read_metrics(run.path))
    folders.make_output(out.parent)

    with ExitStack() as whole:  # the files take their names together, after the last check
        parity_file = whole.enter_context(files.replacing(out.with_name("parity.json")))
        beside = {"fp32": whole.enter_context(files.replacing(out))}
        expected = {name: run.probabilities(split.images) for name, split in splits.items()}
        network, text, figures = export(run, about, beside["fp32"], splits, expected, args.threads)
        texts, checked = [f"{source.label}, {text}"], {"model": out.name} | figures
        if args.int8:
            beside["int8"] = whole.enter_context(files.replacing(quantized))
            text, figures = export_int8(
                network, run.data["size"], about, beside["int8"], splits, expected, args.threads
            )
            texts, checked = [*texts, text], checked | {"int8": {"model": quantized.name} | figures}
        if args.benchmark:
            measured = latency.measure(beside, run, splits["train"].images)
            texts, checked = [*texts, latency.text(measured)], checked | {"benchmark": measured}
        checked |= {"provenance": provenance(source, args.threads)}
        files.write_json(parity_file, checked, source.notice)
    if quantized.exists() and not args.int8:
        print(f"warning: {quantized} is of an earlier export; --int8 makes it anew", file=sys.stderr)
    print("\n\n".join(texts))
    for file in (out, quantized) if args.int8 else (out,):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.run(main)
