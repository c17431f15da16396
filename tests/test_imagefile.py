import struct
import sys
import zlib

import numpy as np
import pytest
from conftest import refusal
from PIL import Image

from common import imagefile, phantom
from common.errors import UserError


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """A phantom, cut so that it is neither square nor symmetric: uint8 [40, 56]."""
    return phantom.generate(1, 64, seed=0)[0][0, :40, :56].copy()


def only(path) -> np.ndarray:
    (image,) = imagefile.frames(path)
    return image


def refused(path) -> str:
    return refusal(lambda: list(imagefile.frames(path)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_is_read_as_stored(grey, tmp_path, suffix):
    Image.fromarray(grey).save(tmp_path / f"image.{suffix}")
    assert np.array_equal(only(tmp_path / f"image.{suffix}"), grey)


def test_jpeg_and_colour_are_what_pillow_makes_of_them(grey, tmp_path):
    colour = Image.fromarray(np.stack([grey, grey.T.copy().reshape(grey.shape), 255 - grey], -1))
    for name in ("colour.png", "colour.jpg", "colour.tif"):
        colour.save(tmp_path / name)
        assert np.array_equal(only(tmp_path / name), np.asarray(Image.open(tmp_path / name).convert("L")))
    colour.quantize(16).save(tmp_path / "palette.png")
    assert np.abs(only(tmp_path / "palette.png").astype(int) - np.asarray(colour.convert("L"))).mean() < 20


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_span_the_same_range(grey, tmp_path, suffix):
    values = grey.astype(np.uint16) * 257
    values[0, :4] = (0, 128, 129, 65535)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    found = only(tmp_path / f"deep.{suffix}")
    assert np.array_equal(found[0, :4], (0, 0, 1, 255)) and np.array_equal(found[1:], grey[1:])


@pytest.mark.parametrize("largest, white", [(200, 255), (255, 255), (256, 4095), (4095, 4095), (4096, 65535)])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_the_white_of_sixteen_bits_is_told_by_the_largest_value(tmp_path, suffix, largest, white):
    values = np.linspace(0, largest, 400).round().astype(np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    assert np.array_equal(only(tmp_path / f"deep.{suffix}"), (values * (255 / white)).round())


@pytest.mark.parametrize("largest", [4095, 65535])
def test_dark_colour_of_sixteen_bits_is_refused_and_other_colour_is_read(tmp_path, largest):
    values = np.linspace(0, largest, 400).round().astype(">u2").reshape(20, 20)
    rows = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in values)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    parts = [
        struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks.items()
    ]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    if largest == 65535:
        assert np.abs(only(tmp_path / "deep.png") - values / 257).max() <= 1
    else:
        assert "dark colours of 16 bits" in refusal(only, tmp_path / "deep.png")


def test_each_page_has_a_white_of_its_own(tmp_path):
    low = np.full((20, 20), 4095, np.uint16)
    first, second = Image.fromarray(low), Image.fromarray(low * 16)
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    assert [int(page.max()) for page in imagefile.frames(tmp_path / "pages.tif")] == [255, 255]


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "dib", "gif", "webp", "jp2", "pgm", "ppm", "pnm"])
def test_less_usual_formats(grey, tmp_path, suffix):
    how = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix in ("jpe", "jfif") else {}
    Image.fromarray(grey).convert("RGB" if suffix == "ppm" else "L").save(tmp_path / f"image.{suffix}", **how)
    assert np.abs(only(tmp_path / f"image.{suffix}").astype(int) - grey).max() <= 3 * (suffix in ("jpe", "jfif"))


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_each_frame_of_an_animation_is_a_page(grey, tmp_path, suffix):
    pages = [Image.fromarray(page) for page in (grey, 255 - grey, grey.T.copy().reshape(grey.shape))]
    how = {"lossless": True} if suffix == "webp" else {}
    pages[0].save(tmp_path / f"pages.{suffix}", save_all=True, append_images=pages[1:], **how)
    found = list(imagefile.frames(tmp_path / f"pages.{suffix}"))
    assert len(found) == 3 and all(np.array_equal(a, np.asarray(b)) for a, b in zip(found, pages))


def test_transparent_is_black(grey, tmp_path):
    alpha = np.full_like(grey, 255)
    alpha[:20] = 0
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(tmp_path / "alpha.png")
    found = only(tmp_path / "alpha.png")
    assert not found[:20].any() and np.array_equal(found[20:], grey[20:])


def test_exif_orientation_turns_the_image_upright(grey, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right side of what is stored
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(only(tmp_path / "turned.png"), np.rot90(grey, -1))


def test_pages_of_a_tiff(grey, tmp_path):
    pages = [Image.fromarray(page) for page in (grey, 255 - grey, grey[:20])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    found = list(imagefile.frames(tmp_path / "pages.tif"))
    assert len(found) == 3 and all(np.array_equal(a, np.asarray(b)) for a, b in zip(found, pages))


@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_a_tiff_that_stores_white_as_0_is_read_as_a_viewer_shows_it(grey, tmp_path, white):
    values = np.round(grey.astype(float) * (white / 255)).astype(np.uint16)
    values[0, 0] = white
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as stored:
        assert stored.tag_v2[262] == 0 and stored.mode == "I;16"
    assert np.array_equal(only(tmp_path / "x.tif")[1:], 255 - grey[1:])


def test_what_is_no_image_is_refused_in_one_line(grey, tmp_path):
    assert "No such file" in refused(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("not an image")
    assert "is not a readable PNG, JPEG" in refused(tmp_path / "text.png")
    Image.fromarray(grey).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:400])
    assert "cannot be" in refused(tmp_path / "cut.png")
    Image.fromarray(grey[:7]).save(tmp_path / "small.png")
    assert refused(tmp_path / "small.png") == "is 7×56. The model needs at least 8×8 pixels."
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    assert "32 bits" in refused(tmp_path / "float.tif")
    Image.fromarray(grey).save(tmp_path / "image.ico")
    assert "is not a readable PNG, JPEG" in refused(tmp_path / "image.ico")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [9_999, 4_000])  # up to twice the limit, Pillow only warns
def test_bombs_are_not_decoded(limit, tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert "limit" in refused(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(28, 28), (40, 56), (57, 31), (8, 8)])
def test_prepare_crops_the_middle_and_resizes(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    side, (top, left) = min(shape), ((shape[0] - min(shape)) // 2, (shape[1] - min(shape)) // 2)
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    assert np.array_equal(imagefile.prepare(image, 28), np.asarray(square.resize((28, 28), Image.Resampling.BILINEAR)))
    if shape == (28, 28):
        assert np.array_equal(imagefile.prepare(image, 28), image)


def test_dicom_without_pydicom_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "scan").write_bytes(bytes(128) + b"DICM")
    assert "needs pydicom" in refused(tmp_path / "scan")


class TestDicom:
    @pytest.fixture
    def write(self, tmp_path):
        """A function that writes an uncompressed DICOM file of pixels [h, w], [h, w, 3] or [frames, h, w]."""
        pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed; predict.py does without")

        def write(pixels, photometric="MONOCHROME2", bits=8, **elements):
            dataset = pydicom.Dataset()
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
            if pixels is not None:
                dataset.set_pixel_data(pixels, photometric, bits)
            dataset.SOPInstanceUID = pydicom.uid.generate_uid()
            dataset.update(elements)
            dataset.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
            return tmp_path / "scan.dcm"

        return write

    def test_grey_colour_inverted_and_frames(self, grey, write):
        assert np.array_equal(only(write(grey)), grey)
        assert np.array_equal(only(write(grey, "MONOCHROME1")), 255 - grey)
        assert np.array_equal(only(write(np.stack([grey] * 3, -1), "RGB")), grey)
        found = list(imagefile.frames(write(np.stack([grey, 255 - grey]))))
        assert len(found) == 2 and np.array_equal(found[0], grey) and np.array_equal(found[1], 255 - grey)

    def test_stored_bits_and_window(self, grey, write):
        deep = grey.astype(np.uint16) * 16  # of 12 bits
        assert np.abs(only(write(deep, bits=12)).astype(int) - grey).max() <= 1
        window = {"WindowCenter": 128, "WindowWidth": 256, "RescaleSlope": 0.0625, "RescaleIntercept": 0}
        assert np.abs(only(write(deep, bits=12, **window)).astype(int) - grey).max() <= 1
        narrow = only(write(deep, bits=12, **window | {"WindowWidth": 2}))
        assert set(np.unique(narrow)) <= {0, 128, 255} and (narrow[grey > 130] == 255).all()

    @pytest.mark.parametrize("elements", [
        {"RescaleSlope": None, "RescaleIntercept": None}, {"RescaleSlope": None, "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": None}, {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": 100, "WindowWidth": 0}, {"WindowCenter": [100, 50], "WindowWidth": [0, 0]},
        {"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": 100, "WindowWidth": None}, {"WindowCenter": 100},
        {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": ""},
    ])  # fmt: skip
    def test_elements_without_a_value_mean_nothing(self, grey, write, elements):
        assert np.array_equal(only(write(grey, **elements)), grey)

    @pytest.mark.parametrize("meta", [True, False])
    @pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian"])
    def test_without_preamble(self, grey, write, syntax, meta):
        """With and without the elements of group 2, which name the transfer syntax."""
        import pydicom

        path = write(grey)
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        dataset.preamble = None
        if meta:
            pydicom.dcmwrite(path, dataset, enforce_file_format=False)
        else:
            del dataset.file_meta
            implicit = syntax.startswith("Implicit")
            pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM" and np.array_equal(only(path), grey)

    def test_what_cannot_be_read_is_named(self, grey, write):
        path = write(grey)
        path.write_bytes(path.read_bytes()[:-500])
        assert "cannot be decoded" in refused(path)
        assert "is a DICOM file without an image" in refused(write(None))
        assert "is a DICOM file without an image" in refused(write(None, Rows=40, Columns=56))

    def test_every_file_of_pydicom_s_own_ends_in_frames_or_in_one_line(self, write, recwarn):
        ends = [
            "frames",
            "is a DICOM file without an image",
            "needs pylibjpeg (JPEG",
            "is damaged, or needs pylibjpeg (pillow: ",
        ]
        ends += ["is not a readable PNG, JPEG", "is 3×3", "cannot be decoded (", "cannot be read (Is a directory)"]
        seen = dict.fromkeys(ends, 0)
        for path in pytest.importorskip("pydicom.data").get_testdata_files():
            try:
                assert list(imagefile.frames(path)), path
                end = "frames"
            except UserError as error:
                end = str(error)
                assert "\n" not in end and end.startswith(tuple(ends)), path
            seen[next(start for start in ends if end.startswith(start))] += 1
        assert seen["frames"] >= 50 and seen["is a DICOM file without an image"] >= 10
        if not pytest.importorskip("pydicom.pixels").get_decoder("1.2.840.10008.1.2.4.80").is_available:
            assert seen["needs pylibjpeg (JPEG"] >= 5
        assert not recwarn.list  # pydicom's, in two lines each

    @pytest.mark.parametrize("how", ["rle", "rle_2frame", "rle_16bit", "rle_32bit", "jpeg_dcmtk", "dcmtk_+eb+cy+s2"])
    def test_colours_are_those_that_the_file_was_made_of(self, write, how):
        """RGB and YBR, uncompressed, RLE and JPEG: bands of ten rows, whose colours the files' comment gives."""
        bands = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255)]
        bands += [(grey,) * 3 for grey in (0, 64, 192, 255)]
        expected = np.asarray(Image.fromarray(np.array([bands], np.uint8)).convert("L"))[0].astype(int)
        path = pytest.importorskip("pydicom.data").get_testdata_file(f"SC_rgb_{how}.dcm")
        first, *more = imagefile.frames(path)
        assert np.abs(first[5::10, 50] - expected).max() <= 3 and len(more) == ("2frame" in how)

    def test_what_pillow_decodes_is_what_pydicom_shows(self, write):
        """JPEG 2000 in colour, and 30 frames of YBR in JPEG."""
        for name, count in (("examples_jpeg2k.dcm", 1), ("examples_ybr_color.dcm", 30)):
            path = pytest.importorskip("pydicom.data").get_testdata_file(name)
            pixels = pytest.importorskip("pydicom.pixels").pixel_array(path)
            found = list(imagefile.frames(path))
            assert len(found) == count
            for frame, colour in zip(found, pixels if count > 1 else [pixels]):
                assert np.array_equal(frame, np.asarray(Image.fromarray(colour).convert("L")))

    def test_files_that_pydicom_once_read_wrong(self, write):
        data = pytest.importorskip("pydicom.data")
        for name in ("J2K_pixelrep_mismatch.dcm", "image_dfl.dcm"):
            assert np.ptp(only(data.get_testdata_file(name))) > 200
