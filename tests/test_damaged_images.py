"""Damaged image files of every format: frames, or one line that says why there are none; never another exception."""

import io
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from conftest import damaged, refusal
from hypothesis import strategies as st
from PIL import Image

from common import imagefile, phantom
from common.errors import UserError

FORMATS = {
    "one.png": {}, "deep.png": {}, "one.jpg": {}, "one.jp2": {}, "one.bmp": {}, "one.dib": {}, "one.pgm": {},
    "one.ppm": {}, "deep.pgm": {}, "pages.gif": {}, "pages.webp": {}, "one.webp": {}, "pages.tif": {},
    "packed pages.tif": {"compression": "tiff_lzw"}, "deflated pages.tif": {"compression": "tiff_adobe_deflate"},
}  # fmt: skip
DICOM = ["explicit.dcm", "bare.dcm"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged files that it reads all the same


def save(name: str) -> bytes:
    """A good file of phantoms. Its name says how many bits, pages and channels it has."""
    grey = phantom.generate(3, 64, seed=0)[0][:, :40, :56]
    first, *others = (Image.fromarray(page.astype(np.uint16) * 257 if "deep" in name else page) for page in grey)
    pages = {"save_all": True, "append_images": others} if "pages" in name else {}
    first = first.convert("RGB") if name.endswith("ppm") else first
    first.save(file := io.BytesIO(), Image.registered_extensions()[Path(name).suffix], **FORMATS[name], **pages)
    return file.getvalue()


def save_dicom(name: str) -> bytes:
    """A DICOM file with a window and a rescale. Its name says whether it has a preamble."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed; predict.py does without")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    dataset.set_pixel_data(phantom.generate(1, 28, seed=0)[0][0], "MONOCHROME2", 8)
    dataset.update({"WindowCenter": 100, "WindowWidth": 150, "RescaleSlope": 2, "RescaleIntercept": -10})
    dataset.save_as(file := io.BytesIO(), enforce_file_format=True)
    return file.getvalue()[128 + 4 if name == "bare.dcm" else 0 :]


@pytest.fixture(scope="module", params=[*FORMATS, *DICOM])
def good(request) -> tuple[str, bytes]:
    return request.param, save(request.param) if request.param in FORMATS else save_dicom(request.param)


def outcome(name: str, content: bytes, folder: Path) -> list[np.ndarray] | str:
    """Frames, or the line with which the file is refused."""
    (folder / name).write_bytes(content)
    try:
        found = list(imagefile.frames(folder / name))
    except UserError as error:
        assert str(error) == " ".join(str(error).split())
        return str(error)
    assert found and all(frame.dtype == np.uint8 and frame.ndim == 2 and min(frame.shape) >= 8 for frame in found)
    return found


def test_a_good_file_and_its_first_half(good, tmp_path):
    name, content = good
    assert len(outcome(name, content, tmp_path)) == (3 if "pages" in name else 1)
    assert isinstance(outcome(name, content[: len(content) // 2], tmp_path), str)


@pytest.mark.slow
def test_files_that_are_cut_off(good, tmp_path, capfd):
    name, content = good
    for end in {0, 1, len(content) - 1, *range(0, len(content), max(len(content) // 60, 1))}:
        outcome(name, content[:end], tmp_path)
    assert capfd.readouterr().err == ""


BYTES = st.one_of(st.integers(0, 7), st.binary(min_size=1, max_size=12))  # a bit to flip, or what stands there instead
PLACE = st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 0.05))  # headers, which come first, more often


@pytest.mark.slow
def test_flipped_bits_and_foreign_bytes(good, tmp_path_factory, capfd):
    name, content = good
    folder, refused = tmp_path_factory.mktemp("damaged"), []

    @hypothesis.settings(max_examples=300, derandomize=True, deadline=None, database=None)
    @hypothesis.given(st.lists(st.tuples(PLACE, BYTES), min_size=1, max_size=4))
    def damage(changes):
        refused.append(isinstance(outcome(name, damaged(content, changes), folder), str))

    damage()
    assert any(refused)
    assert capfd.readouterr().err == ""


def test_a_bug_of_our_own_is_not_called_damage(tmp_path, monkeypatch):
    """Only what decoders raise is caught."""

    class Bug(Exception):
        pass

    def fail(*_):
        raise Bug

    (tmp_path / "one.png").write_bytes(save("one.png"))
    monkeypatch.setattr(imagefile, "to_grey", fail)
    with pytest.raises(Bug):
        list(imagefile.frames(tmp_path / "one.png"))
    monkeypatch.undo()
    assert "cannot be read" in refusal(lambda: list(imagefile.frames(tmp_path / "absent.png")))
