"""What results/lesion.py measures with, on boxes and maps that are known."""

import torch
from conftest import REPO

from common.boxes import overlap
from results import lesion


def test_the_tables_of_the_page_are_made_from_the_rows():
    page = (REPO / "results" / "lesion.md").read_text()
    for columns, header in lesion.TABLES:
        made = lesion.table(columns, " | ".join(f"{way}: {header}" for way in ("BUSI to BrEaST", "BrEaST to BUSI")))
        assert made in page


def test_a_box_comes_back_from_the_heat_of_its_ellipse():
    boxes = torch.tensor([[0.2, 0.3, 0.5, 0.25], [0.5, 0.1, 0.3, 0.6]])
    heat = torch.nn.functional.avg_pool2d(lesion.ellipses(boxes, 128), 8)
    for rule in lesion.RULES.values():
        assert (overlap(rule(heat).numpy(), boxes.numpy()) > 0.85).all()


def test_a_second_warm_spot_moves_the_box_of_the_whole_map_only():
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4]])
    heat = torch.nn.functional.avg_pool2d(lesion.ellipses(boxes, 128), 8)
    heat[0, 14, 14] = 0.9
    assert overlap(lesion.RULES["largest part"](heat).numpy(), boxes.numpy()) > 0.85
    assert overlap(lesion.RULES["whole map"](heat).numpy(), boxes.numpy()) < 0.85


def test_a_lesion_of_one_cell_has_a_box_of_about_a_cell():
    heat = torch.zeros(1, 16, 16)
    heat[0, 4, 7] = 1
    x, y, width, height = lesion.RULES["largest part"](heat)[0].tolist()
    assert abs(x + width / 2 - 7.5 / 16) < 1e-5 and abs(y + height / 2 - 4.5 / 16) < 1e-5
    assert 1 / 16 < width == height < 1.3 / 16


def test_shares_and_pixels_are_each_other_s_inverse():
    views = torch.tensor([[0.0, -50, 300, 300]])
    boxes = torch.tensor([[20.0, 30, 100, 40]])
    torch.testing.assert_close(lesion.in_pixels(lesion.in_shares(boxes, views), views), boxes)
