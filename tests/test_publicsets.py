"""Public sets as they are downloaded: the real ones where they lie beside the repository, and small generated ones."""

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, refusal
from PIL import Image

from common import publicsets
from common.imagetable import list_images
from common.tablefile import BOX, COLUMNS

EXTERNAL = REPO.parent / "shared" / "external"
BREAST = publicsets.BREAST_FOLDER
SIZE = (40, 30)
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def picture(path: Path, size=SIZE, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 90 if mode == "L" else (90, 90, 90)).save(path)


def mask(path: Path, *boxes, size=SIZE, colour=WHITE, mode: str = "RGB") -> None:
    """Write a mask that is not black in boxes of left, top, right, bottom."""
    image = Image.new("RGB", size)
    for box in boxes:
        image.paste(colour, box)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def make_busi(folder: Path) -> None:
    for name in ("benign (1)", "benign (2)", "malignant (1)", "normal (1)"):
        picture(folder / name.split()[0] / f"{name}.png", mode="RGB")
        mask(folder / name.split()[0] / f"{name}_mask.png", *([] if "normal" in name else [(2, 3, 12, 9)]), mode="1")
    mask(folder / "benign/benign (2)_mask_1.png", (20, 1, 30, 5), mode="L")


def make_busbra(folder: Path, suffix: str = "png") -> None:
    rows = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    for name, case, truth in [("0001-l", 1, "benign"), ("0001-r", 1, "benign"), ("0003-s", 3, "malignant")]:
        picture(folder / f"Images/bus_{name}.{suffix}")
        mask(folder / f"Masks/mask_{name}.png", (2, 3, 12, 9), mode="1")
        rows.append(f'bus_{name},{case},carcinoma,{truth},4,GE Logiq 5 @10-12MHz,40,30,left,"[3,4,9,5]"')
    (folder / "bus_data.csv").write_text("\n".join(rows))


def make_breast(folder: Path) -> None:
    info: dict[str, list] = {
        "CaseID": [1, 2, 3],
        "Image_filename": [f"case00{i}.png" for i in (1, 2, 3)],
        "Mask_tumor_filename": ["case001_tumor.png", "case002_tumor.png", None],
        "Mask_other_filename": [None, "case002_other1.png", None],
        "Age": [57, "not available", 40],
        "BIRADS": [2, "4a", 1],
        "Classification": ["benign", "malignant", "normal"],
    }
    for name in info["Image_filename"]:
        picture(folder / BREAST / str(name), mode="RGB")
    mask(folder / BREAST / "case001_tumor.png", (2, 3, 12, 9), mode="1")
    mask(folder / BREAST / "case002_tumor.png", (2, 3, 12, 9), mode="1")
    mask(folder / BREAST / "case002_other1.png", (20, 20, 30, 30), mode="1")
    pd.DataFrame(info).to_csv(folder / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.csv", index=False, sep=";")


def make_busuclm(folder: Path) -> None:
    rows = ["Image;Resolution;Label;Doppler;Marks;Combined"]
    for name, truth in [("ALWI_000", "Benign"), ("ALWI_001", "Malignant"), ("CHCO_000", "Normal")]:
        picture(folder / f"images/{name}.png", mode="RGBA" if truth == "Normal" else "RGB")
        rows.append(f"{name}.png;40x30;{truth};No;Yes;No")
    mask(folder / "masks/ALWI_000.png", (2, 3, 12, 9), colour=GREEN)
    mask(folder / "masks/ALWI_001.png", (1, 6, 6, 18), size=(20, 60), colour=RED)  # stretched to the image
    mask(folder / "masks/CHCO_000.png")
    (folder / "INFO.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")


MAKE: dict[str, Callable[[Path], None]] = {
    "BUSI": make_busi,
    "BUS-BRA": make_busbra,
    "BrEaST-Lesions-USG": make_breast,
    "BUS-UCLM": make_busuclm,
}
BOXED, NO_BOX = (2.0, 3.0, 10.0, 6.0), (np.nan,) * 4
EXPECTED = {  # image: label, patient, class, box, and others
    "BUSI": {
        "benign/benign (1).png": (0, "", "benign", BOXED),
        "benign/benign (2).png": (0, "", "benign", (2.0, 1.0, 28.0, 8.0)),
        "malignant/malignant (1).png": (1, "", "malignant", BOXED),
        "normal/normal (1).png": (0, "", "normal", NO_BOX),
    },
    "BUS-BRA": {
        "Images/bus_0001-l.png": (0, "1", "benign", BOXED),
        "Images/bus_0001-r.png": (0, "1", "benign", BOXED),
        "Images/bus_0003-s.png": (1, "3", "malignant", BOXED),
    },
    "BrEaST-Lesions-USG": {
        f"{BREAST}/case001.png": (0, "case001", "benign", BOXED),
        f"{BREAST}/case002.png": (1, "case002", "malignant", BOXED),
        f"{BREAST}/case003.png": (0, "case003", "normal", NO_BOX),
    },
    "BUS-UCLM": {
        "images/ALWI_000.png": (0, "ALWI", "benign", BOXED),
        "images/ALWI_001.png": (1, "ALWI", "malignant", BOXED),
        "images/CHCO_000.png": (0, "CHCO", "normal", NO_BOX),
    },
}
OTHERS = {
    "BUSI": {},
    "BUS-BRA": {
        "device": ["GE Logiq 5 @10-12MHz"] * 3,
        "birads": ["4"] * 3,
        "histology": ["carcinoma"] * 3,
        "side": ["left"] * 3,
    },
    "BrEaST-Lesions-USG": {"birads": ["2", "4a", "1"], "age": ["57", "not available", "40"]},
    "BUS-UCLM": {"doppler": ["No"] * 3, "marks": ["Yes"] * 3, "combined": ["No"] * 3},
}


@pytest.fixture
def made(tmp_path) -> Callable[[str], Path]:
    """Generates a small set of a name. Returns: its folder."""

    def make(name: str) -> Path:
        MAKE[name](tmp_path / "set")
        return tmp_path / "set"

    return make


@pytest.mark.parametrize("name", MAKE)
def test_generated_sets(made, name):
    found = list_images(made(name))
    table = found.table.set_index("image")
    assert list(table.index) == list(EXPECTED[name]) and all((found.folder / image).is_file() for image in table.index)
    for image, (label, patient, word, box) in EXPECTED[name].items():
        assert tuple(table.loc[image, ["label", "patient", "class"]]) == (label, patient, word)
        np.testing.assert_array_equal(table.loc[image, BOX].astype(float), box)
    others = {column: table[column].tolist() for column in table if column not in [*COLUMNS, "class"]}
    assert others == OTHERS[name]
    assert len(found.notes) == 1 and found.notes[0].startswith(f"read as {name}, with boxes from ")


@pytest.mark.parametrize("name", MAKE)
def test_the_folder_that_holds_a_set_is_recognised(made, name):
    folder = made(name)
    found = list_images(folder.parent)
    assert found.folder == folder and list(found.table["image"]) == list(EXPECTED[name])


def test_jpeg_images_of_busbra(tmp_path):
    make_busbra(tmp_path, "jpg")
    assert list_images(tmp_path).table["image"][0] == "Images/bus_0001-l.jpg"


def test_busi_in_folders_of_splits_is_a_folder_per_class(tmp_path):
    make_busi(tmp_path / "train")
    assert publicsets.recognise(tmp_path) is None
    table = list_images(tmp_path).table
    assert set(table["split"]) == {"train"} and len(table) == 4


def test_what_a_set_does_not_describe_is_said(made):
    folder = made("BUSI")
    picture(folder / "benign/mine.png")
    picture(folder / "other/x.png")
    (folder / "benign/notes.txt").touch()
    mask(folder / "malignant/malignant (1)_mask.png")
    _, empty, unused, others, suffix = list_images(folder).notes
    assert empty == "1 benign or malignant images have no box, because their masks are empty"
    assert unused.endswith("the table of BUSI does not list them: benign/mine")
    assert others.endswith("skipped: other") and suffix.startswith("1 file skipped: no image suffix (notes.txt)")


LACKING = {
    ("BUSI", "benign/benign (1).png"): "looks like BUSI, but lacks the image benign/benign (1).",
    ("BUSI", "benign/benign (1)_mask.png"): "lacks the mask of benign/benign (1).",
    ("BUS-BRA", "bus_data.csv"): "looks like BUS-BRA, but lacks bus_data.csv.",
    ("BUS-BRA", "Masks"): "lacks Masks.",
    ("BUS-BRA", "Images/bus_0001-l.png"): "lacks the image bus_0001-l.",
    ("BUS-BRA", "Masks/mask_0001-l.png"): "lacks the mask of bus_0001-l.",
    (
        "BrEaST-Lesions-USG",
        "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.csv",
    ): "lacks its clinical table (.xlsx or .csv).",
    ("BrEaST-Lesions-USG", f"{BREAST}/case003.png"): "lacks the image case003.",
    ("BrEaST-Lesions-USG", f"{BREAST}/case002_tumor.png"): "lacks the mask of case002.",
    ("BUS-UCLM", "INFO.csv"): "looks like BUS-UCLM, but lacks INFO.csv.",
    ("BUS-UCLM", "images/ALWI_000.png"): "lacks the image ALWI_000.",
    ("BUS-UCLM", "masks"): "lacks masks.",
}


@pytest.mark.parametrize("name, path", LACKING)
def test_a_set_without_some_of_its_files_is_refused(made, name, path):
    folder = made(name)
    (shutil.rmtree if (folder / path).is_dir() else Path.unlink)(folder / path)
    message = refusal(list_images, folder)
    assert message.startswith(f"{folder}: looks like {name}") and LACKING[name, path] in message


def test_a_table_without_a_column_an_unknown_label_and_a_damaged_mask(made):
    folder = made("BUS-UCLM")
    info = (folder / "INFO.csv").read_text(encoding="utf-8")
    (folder / "INFO.csv").write_text(info.replace("Doppler", "Flow"), encoding="utf-8")
    assert "lacks the column doppler in INFO.csv" in refusal(list_images, folder)
    (folder / "INFO.csv").write_text(info.replace("Benign", "Cyst"), encoding="utf-8")
    assert "unknown label 'cyst'" in refusal(list_images, folder)
    (folder / "INFO.csv").write_text(info, encoding="utf-8")
    (folder / "masks/ALWI_000.png").write_bytes(b"no image")
    assert "masks/ALWI_000.png is damaged. Download the data set again" in refusal(list_images, folder)


def to_xlsx(folder: Path) -> Path:
    """Save the clinical table of BrEaST as the Excel sheet that is downloaded."""
    pytest.importorskip("openpyxl")
    (table,) = folder.glob("*.csv")
    pd.read_csv(table, sep=";").to_excel(table.with_suffix(".xlsx"), index=False)
    table.unlink()
    return table.with_suffix(".xlsx")


def test_the_clinical_table_of_breast_as_an_excel_sheet(made):
    from_csv = list_images(made("BrEaST-Lesions-USG"))
    to_xlsx(from_csv.folder)
    pd.testing.assert_frame_equal(list_images(from_csv.folder).table, from_csv.table)


def test_without_openpyxl_one_line_says_what_to_do(made, monkeypatch):
    sheet = to_xlsx(folder := made("BrEaST-Lesions-USG"))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    message = refusal(list_images, folder)
    assert message.startswith(f"{sheet}: ") and "pip install openpyxl" in message and "CSV" in message
    sheet.write_bytes(b"PK\3\4 damaged")
    monkeypatch.undo()
    assert "cannot be read. Download the data set again" in refusal(list_images, folder)


# the real ones


@cache
def real(name: str) -> pd.DataFrame:
    if not (EXTERNAL / name).is_dir():
        pytest.skip(f"{EXTERNAL / name} is not here")
    return list_images(EXTERNAL / name).table


@pytest.mark.parametrize(
    "name, classes, patients, boxes",
    [
        ("busi", {"benign": 437, "malignant": 210, "normal": 133}, 1, 647),
        ("busbra", {"benign": 622, "malignant": 313}, 532, 935),
        ("breast", {"benign": 154, "malignant": 98, "normal": 4}, 256, 252),
    ],
)
def test_real_sets(name, classes, patients, boxes):
    table = real(name)
    assert table["class"].value_counts().to_dict() == classes and table["label"].sum() == classes["malignant"]
    assert table["patient"].nunique() == patients and table["x"].notna().sum() == boxes
    if name != "busi":
        assert (table["birads"] != "").all()


def test_busi_s_boxes_are_those_of_the_splits_of_breastmnist():
    table = real("busi")
    known = pd.read_csv(EXTERNAL / "busi_splits.csv").set_index("image")
    assert len(known) == 780
    np.testing.assert_array_equal(table[BOX], known.loc["busi/" + table["image"], BOX])


def test_busbra_s_devices():
    assert real("busbra")["device"].nunique() == 4
