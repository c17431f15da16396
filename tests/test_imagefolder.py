"""Which files of a folder are images, in training and prediction alike."""

import os
from pathlib import Path

import pytest
from conftest import REPO

from common.imagefolder import SUFFIXES, describe_left_out, find, list_folder

EXTERNAL = REPO.parent / "shared" / "external"


@pytest.fixture
def made(tmp_path):
    """A function that makes files, with b"" in them or what is given. Returns: (images, {reason: files}), as texts."""

    def made(*names, content=b"") -> tuple[list[str], dict[str, list[str]]]:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return listed(tmp_path)

    return made


def listed(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    found = list_folder(folder)
    left_out = {reason: [p.relative_to(folder).as_posix() for p in paths] for reason, paths in found.left_out.items()}
    return [path.relative_to(folder).as_posix() for path in found.images], left_out


def test_images_are_in_order_and_other_files_are_named(made):
    found = made("b/2.png", "b/10.PNG", "a/x.tif", "notes.txt", "0.jpeg", "z.png")
    assert found == (["0.jpeg", "z.png", "a/x.tif", "b/10.PNG", "b/2.png"], {"no image suffix": ["notes.txt"]})


def test_a_path_gives_the_images_of_its_folder_or_itself(tmp_path):
    (tmp_path / "x_mask.png").touch()
    (tmp_path / "x.png").touch()
    folder, mask, absent = map(find, [tmp_path, tmp_path / "x_mask.png", "no/such.txt"])
    assert folder.images == [tmp_path / "x.png"] and folder.left_out == {"masks": [tmp_path / "x_mask.png"]}
    assert mask.images == [tmp_path / "x_mask.png"] and mask.left_out == {}
    assert [str(path) for path in absent.images] == ["no/such.txt"]


def test_every_suffix_that_can_be_decoded(made):
    names = sorted(f"x{i:02}{suffix}" for i, suffix in enumerate(SUFFIXES))
    assert made(*names)[0] == names


@pytest.mark.parametrize("image, mask", [
    ("case001.jpg", "case001_tumor.png"), ("case001.png", "case001_other1.png"), ("x.png", "x_seg.png"),
    ("benign (1).png", "benign (1)_mask.png"), ("benign (1).png", "benign (1)_mask_1.png"), ("x.png", "x-mask.png"),
    ("x.png", "x_GT.png"), ("x.png", "GT_x.png"), ("x.png", "mask_x.png"), ("x.png", "x.roi.png"),
    ("x.png", "X_LESION2.png"), ("x.png", "x_lesion_seg.png"), ("x.png", "x_ground_truth.png"), ("x.png", "x gt 2.png"),
    ("001.png", "seg_001.png"), ("case 7.png", "case_7_annotations.png"), ("case7.png", "case7contour.png"),
    ("imgA.png", "imgA-Labels.png"), ("imgA.png", "imgAMask.png"), ("x.png", "segm x.png"),
    ("other.png", "mask_0001-l.png"), ("x.png", "y_mask.png"), ("x.png", "masks3.png"), ("x.png", "GroundTruth.png"),
    ("x.png", "y segmentation.png"),
])  # fmt: skip
def test_a_mask_is_told_by_its_name_and_the_names_beside_it(made, image, mask):
    assert made(f"a/{image}", f"a/{mask}") == ([f"a/{image}"], {"masks": [f"a/{mask}"]})


@pytest.mark.parametrize("names", [
    ["tumor (1).png", "tumor (2).png"], ["lesion.png", "x.png"], ["label_1.png", "roi_2.png"], ["gt350.png", "x.png"],
    ["x_tumor.png", "y.png"], ["other.png", "seg.png"], ["unmasked.png"], ["benign_1.png", "benign_2.png"],
    ["a/x.png", "b/x_seg.png"],
])  # fmt: skip
def test_an_image_is_no_mask_only_because_of_a_weak_word(made, names):
    assert made(*names) == (names, {})


@pytest.mark.parametrize(
    "folder",
    ["masks", "Mask", "GT", "ground_truth", "Ground Truth", "labels", "Annotations", "segmentations"]
    + ["Masken", "training_masks"],
)
def test_a_folder_of_masks_is_left_out_at_every_depth(made, folder):
    images, left_out = made("images/x.png", f"{folder}/x.png", f"a/{folder}/deep/x.png")
    assert images == ["images/x.png"] and set(left_out["masks"]) == {f"{folder}/x.png", f"a/{folder}/deep/x.png"}


def test_the_given_folder_may_have_any_name(tmp_path):
    for name in ("masks", "images_and_masks", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
        assert listed(tmp_path / name) == (["x.png"], {})
    assert listed(tmp_path)[0] == ["images_and_masks/x.png"]


def test_hidden_files_are_left_out(made):
    names = [
        "._x.png",
        ".git/x.png",
        ".ipynb_checkpoints/x-checkpoint.png",
        "__MACOSX/a/._x.png",
        "Thumbs.db",
        "DICOMDIR",
    ]
    images, left_out = made("x.png", *names, "desktop.ini", "a/.DS_Store")
    assert images == ["x.png"] and set(left_out["hidden"]) == {*names, "desktop.ini", "a/.DS_Store"}


@pytest.mark.parametrize("start", [
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM\1\2\3\4\0\0\0\0", b"II*\0", b"MM\0*",
    b"RIFF\1\2\3\4WEBP", bytes(128) + b"DICM", b"\x08\0\x05\0\x0a\0\0\0ISO_IR", b"\x08\0\x05\0CS\x0a\0ISO_IR",
    b"\x02\0\0\0UL\4\0",
])  # fmt: skip
@pytest.mark.parametrize("name", ["IM0001", "1.2.840.10008", "x.unknown"])
def test_a_file_without_a_known_suffix_is_told_by_its_first_bytes(made, name, start):
    assert made(name, content=start) == ([name], {})


@pytest.mark.parametrize("start", [b"", b"BMI,age\n1,2\n", b"image,label\n", b"RIFF\1\2\3\4WAVE", b"\x08\0", b"GIF is"])
def test_other_files_are_no_images(made, start):
    assert made("table", content=start) == ([], {"no image suffix": ["table"]})


def test_linked_folders_are_followed_but_not_in_circles(made, tmp_path):
    made("a/x.png")
    elsewhere = tmp_path.parent / f"{tmp_path.name} elsewhere"
    elsewhere.mkdir()
    (elsewhere / "y.png").touch()
    try:
        (tmp_path / "linked").symlink_to(elsewhere, target_is_directory=True)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (elsewhere / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "gone.png").symlink_to(tmp_path / "absent")
    assert listed(tmp_path)[0] == ["gone.png", "a/x.png", "linked/y.png", "linked/back/x.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_does_not_block(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert made("x.png") == (["x.png"], {"no image suffix": ["pipe"]})


def test_a_sentence_for_each_reason(made, tmp_path):
    made("x.png", *(f"x_mask{i}.png" for i in range(4)), ".hidden")
    hidden, masks = describe_left_out(list_folder(tmp_path))
    assert hidden == "1 file skipped: hidden (.hidden)"
    assert masks == "4 files skipped: masks (x_mask0.png, x_mask1.png, x_mask2.png, ...)"


@pytest.mark.parametrize(
    "name, images, masks, others", [("busi", 780, 798, 0), ("busbra", 935, 935, 2), ("breast", 256, 266, 1)]
)
def test_public_sets_give_their_ultrasound_images(name, images, masks, others):
    if not (EXTERNAL / name).is_dir():
        pytest.skip(f"no public data set in {EXTERNAL / name}")
    found = list_folder(EXTERNAL / name)
    counts = {"masks": masks, "no image suffix": others}
    assert len(found.images) == images
    assert {reason: len(files) for reason, files in found.left_out.items()} == {k: n for k, n in counts.items() if n}
