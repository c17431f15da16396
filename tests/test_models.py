"""The models that ship: each file gives, on the real test images, what it and its card say."""

import json

import pytest
from conftest import REPO

from common import data, metrics
from common.deploy import onnxfile
from results import busi_table, card, log

MODELS = REPO / "models"
FILES = sorted(MODELS.glob("*.onnx"))


LARGE = [pytest.mark.slow]  # seconds each
BUSI = REPO.parent / "shared/external/busi"


@pytest.fixture(
    params=[pytest.param(file, marks=LARGE * (file.stat().st_size > 7e6), id=file.name) for file in FILES],
    scope="module",
)
def shipped(request, breastmnist, tmp_path_factory):
    """(model, its metadata, the test images as the run had them): BreastMNIST's, or for a file that looks for lesions
    the frames of BUSI that these were made of."""
    model = onnxfile.load(request.param, 1)
    about = model.session.get_modelmeta().custom_metadata_map
    if model.view != "lesion":
        return model, about, data.load(breastmnist(int(about["input_size"])), "test")
    if not BUSI.exists():
        pytest.skip("BUSI's frames are not here")
    table = tmp_path_factory.mktemp("busi") / "busi.csv"
    busi_table.table(BUSI, data.load(breastmnist(28), *data.SPLITS)).to_csv(table, index=False)
    return model, about, data.load(data.find([str(table)], None, int(about["input_size"]), view="lesion"), "test")


def test_every_model_has_its_parity_file_and_a_place_in_the_card():
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    assert FILES and all(f"`{file.name}`" in text for file in FILES)
    parity = MODELS.glob("*.parity.json")
    assert {file.name.split(".")[0] for file in FILES} == {file.name.split(".")[0] for file in parity}


def test_a_shipped_file_gives_its_stored_metrics(shipped):
    model, about, test = shipped
    said = model.answer(test).probabilities if model.view == "lesion" else model.probabilities(test.pixels)
    found = metrics.summary(test.labels, said)
    if "quantization" in about:
        (row,) = [row for row in json.loads(about["quantization"])["rows"] if row["split"] == "test"]
        assert found["auc"] == pytest.approx(row["auc"], abs=5e-4)  # whole numbers, but not the same on every processor
        return
    stored = json.loads(about["metrics"])["test"]  # of the run, whose weights are not rounded: pairs may change places
    for name in metrics.NAMES:
        assert found[name] == pytest.approx(stored[name], abs=1e-3 if name in ("auc", "aupr") else 1e-6)


@pytest.mark.parametrize("header, rows", card.TABLES.items())
def test_the_tables_of_the_card_are_made_from_the_files(header, rows):
    assert log.markdown(header, rows()) in (MODELS / "README.md").read_text(encoding="utf-8")
