import re
from pathlib import Path

import pytest
import torch
import torchvision
from common_fixtures import forget
from conftest import refusal
from torch import nn

from common import model, weights
from common.errors import UserError
from common.model import BreastResNet
from common.settings import Settings

COLOUR_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)  # torchvision's ImageNet preset
COLOUR_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


@pytest.fixture(autouse=True)
def forget_weights():
    forget()


def begin(file, stages: int = 2) -> BreastResNet:
    """A model of 28×28 pixels that starts with a file of weights."""
    torch.manual_seed(0)
    return weights.initial_model(28, Settings(weights=str(file), stages=stages))


def responses(means: torch.Tensor, padding: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The stem's response to random grey images: of colour filters to three equal channels, normalised with `means`;
    of the grey filters; and the colour filters."""
    torch.manual_seed(0)
    images, filters = torch.rand(3, 1, 20, 20).double(), torch.randn(64, 3, 7, 7).double()
    colour = (images - means[:, None, None]) / COLOUR_STD[:, None, None]
    grey = (images - model.GREY_MEAN) / model.GREY_STD
    by_colour = nn.functional.conv2d(colour, filters, padding=padding)
    return by_colour, nn.functional.conv2d(grey, weights.grey_stem(filters), padding=padding), filters


def test_grey_stem_answers_as_the_colour_stem_up_to_a_constant_of_each_filter():
    colour, grey, filters = responses(COLOUR_MEAN, padding=0)
    offset = torch.einsum("ochw,c->o", filters, (model.GREY_MEAN - COLOUR_MEAN) / COLOUR_STD)
    torch.testing.assert_close(colour, grey + offset[:, None, None], rtol=0, atol=1e-10)


def test_grey_stem_answers_exactly_as_the_colour_stem_when_the_channel_means_are_equal():
    colour, grey, _ = responses(torch.full((3,), model.GREY_MEAN, dtype=torch.float64), padding=3)
    torch.testing.assert_close(colour, grey, rtol=0, atol=1e-10)
    assert model.GREY_MEAN == pytest.approx(float(COLOUR_MEAN.mean()), abs=1e-3)
    assert model.GREY_STD == pytest.approx(float(COLOUR_STD.mean()), abs=1e-3)


@pytest.mark.parametrize("stages, lacking", [(2, "fc"), (3, "fc"), (4, "fc, layer4")])
def test_trunk_file_fills_what_it_holds_and_names_what_it_lacks(imagenet_trunk, capsys, stages, lacking):
    network, random = begin(imagenet_trunk, stages), begin("none", stages).trunk.state_dict()
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1  # a random start says nothing
    assert printed.err.endswith(f"start at random: {lacking}\n") and str(imagenet_trunk) in printed.err
    stored = torch.load(imagenet_trunk)
    for name, tensor in network.trunk.state_dict().items():
        if name.startswith(("layer4", "fc")):
            expected = random[name]
        else:
            expected = weights.grey_stem(stored[name]) if name == "conv1.weight" else stored[name]
        assert torch.equal(tensor, expected), name


def test_complete_file_lacks_only_the_classifier(tmp_path, capsys):
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "complete.pth")
    network = begin(tmp_path / "complete.pth", stages=4)
    assert capsys.readouterr().err.endswith("start at random: fc\n")
    assert torch.equal(network.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(network.trunk.fc.weight, begin("none", 4).trunk.fc.weight)


def test_training_one_model_does_not_change_the_next_one_s_start(imagenet_trunk):
    first = begin(imagenet_trunk)
    start = {name: tensor.clone() for name, tensor in first.trunk.state_dict().items()}
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.fill_(7)
    after = begin(imagenet_trunk).trunk.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in start.items())


BAD_STATES = {
    "another network's name": ({"features.0.weight": torch.zeros(1)}, "'features.0.weight' of shape .* is no layer"),
    "another shape": ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"conv1.weight' of shape \[64, 1, 7, 7\] is no"),
    "numbered": ({1: torch.zeros(3)}, r"1 of shape \[3\] is no layer"),
    "no numbers": ({"bn1.bias": torch.full((64,), torch.nan)}, "'bn1.bias' holds values that are no numbers"),
    "sparse": ({"bn1.weight": torch.ones(64).to_sparse()}, "'bn1.weight' holds values that are no numbers"),
    "terabytes, four bytes in the file": ({"conv1.weight": torch.zeros(1).expand(2**40)}, "is no layer"),
    "no layer": ({}, "holds no layer"),
    "classifier only": ({"fc.weight": torch.zeros(1000, 512)}, "holds no layer"),
    "layers left off only": ({"layer4.0.bn1.bias": torch.zeros(512)}, "holds no layer"),
    "tensor": (torch.zeros(3), "not a state dict"),
    "values": ({"conv1.weight": 3}, "not a state dict"),
    "network": (nn.Linear(1, 1), "not a file of plain tensors"),
}


def refused(file: Path, reason: str) -> None:
    """A file is refused in one line that names it and both ways out."""
    message = refusal(begin, file)
    assert re.search(reason, message) and all(way in message for way in (str(file), "--weights FILE", "--weights none"))


@pytest.mark.parametrize("state, reason", BAD_STATES.values(), ids=BAD_STATES)
def test_bad_states(tmp_path, state, reason):
    torch.save(state, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", reason)


def test_damaged_files_and_those_that_are_not_torch_s(tmp_path, imagenet_trunk):
    path, whole = tmp_path / "weights.pth", imagenet_trunk.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (flipped, whole[:-10], whole[: len(whole) // 2], b"", b"text", b"PK\x03\x04 cut off", b"\x80\x02"):
        path.write_bytes(content)
        refused(path, "not a file of plain tensors saved by torch, or a damaged one")


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_files_that_cannot_be_read(tmp_path, name):
    refused(tmp_path / name, "cannot be read")
    with pytest.raises(UserError, match="cannot be read"):
        weights.weights_md5(str(tmp_path / name))


def test_a_file_is_known_by_its_md5_as_it_was_when_training_began(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    assert weights.weights_md5(str(path)) == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, appendix A.5
    path.unlink()
    assert weights.weights_md5(str(path)) == "900150983cd24fb0d6963f7d28e17f72"
    assert weights.weights_md5("imagenet") is weights.weights_md5("none") is None


def test_torch_s_own_words_for_a_full_disk(tmp_path, monkeypatch):
    def fail(content, path):
        path.write_text("half")
        raise RuntimeError("PytorchStreamWriter failed writing file\nframe #0: c10")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="failed writing file.; [^\n]*$"):
        weights.write_tensors(tmp_path / "model.pt", {})
    assert list(tmp_path.iterdir()) == []
