import argparse
import json
import re
from dataclasses import fields, replace

import pytest
from conftest import refusal

from common import settings
from common.run.flags import Parser, add_settings_flags
from common.settings import Settings

GOOD = {
    "lr": ["1e-9", "3", "1e300"],
    "wd": ["0", "0.5"],
    "epochs": ["1", "500"],
    "batch-size": ["1", "1024"],
    "warmup": ["0", "1"],
    "weights": ["none", "imagenet", "some/file.pth"],
    "view": ["auto", "square", "frame", "lesion"],
    "stages": ["auto", "2", "3", "4"],
    "loss": ["focal", "cross-entropy"],
    "label-smoothing": ["0", "0.99"],
    "class-weights": ["none", "balanced"],
    "mixup": ["0", "2"],
    "augment": ["on", "off"],
    "ema": ["0", "0.999"],
    "patience": ["0", "5"],
    "mirror": ["on", "off"],
    "zoom": ["0", "0.5"],
    "scanners": ["auto", "on", "off"],
    "precision": ["auto", "fp32", "bf16"],
}


def parser() -> Parser:
    made = Parser("test")
    made.add_argument("--params")
    add_settings_flags(made)
    return made


def parse(*words: str) -> Settings:
    return Settings.from_args(parser().parse_args(words))


@pytest.mark.parametrize("flag, value", [(flag, value) for flag, values in GOOD.items() for value in values])
def test_values_within_bounds(flag, value):
    name, parsed = flag.replace("-", "_"), parse(f"--{flag}={value}")
    written = parsed.as_dict()[name]
    assert str(written) == value or written == type(getattr(Settings(), name))(value)
    assert parsed == replace(Settings(), **{name: getattr(parsed, name)})  # and nothing else


@pytest.mark.parametrize(
    "kind, text, message",
    [
        (settings.POSITIVE, "0", "'0' is not a number above 0"),
        (settings.NOT_NEGATIVE, "-1", "'-1' is not a number at least 0"),
        (settings.POSITIVE_INT, "1.5", "'1.5' is not a whole number at least 1 and at most 1e+09"),
        (settings.SHARE_BELOW_ONE, "1", "'1' is not a number at least 0 and below 1"),
        (settings.one_of(2, 3, "x"), "4", "'4' is not one of 2, 3, x"),
    ],
)
def test_messages_name_the_bounds(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(message)}$"):
        kind.read(text)


def test_every_setting_has_a_flag_and_its_default_in_the_help():
    shown = " ".join(parser().format_help().split())
    for field in fields(Settings):
        flag, metavar = field.name.replace("_", "-"), re.escape(field.metadata["kind"].metavar)
        default = re.escape(str(Settings().as_dict()[field.name]))
        assert re.search(rf"--{flag} {metavar} .*?\(default: {default}\)", shown), flag
    assert set(GOOD) == {field.name.replace("_", "-") for field in fields(Settings)}


@pytest.fixture
def params(tmp_path):
    """A function that writes a file for --params."""

    def write(content) -> str:
        (tmp_path / "best.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path / "best.json")

    return write


def test_a_flag_wins_over_the_file_which_wins_over_the_default(params):
    notes = {"_score": 0.9, "_": [1], "synthetic": "PHANTOM data"}  # for people
    path = params(notes | {"lr": 0.5, "epochs": 7, "class_weights": "balanced"})
    assert parse("--params", path) == replace(Settings(), lr=0.5, epochs=7, class_weights="balanced")
    assert parse("--params", path, "--lr", "3e-4").lr == 3e-4  # even when the flag is the default
    assert parse("--epochs=9", "--params", path).epochs == 9
    assert parse() == Settings()


def test_every_setting_survives_a_file(params):
    changed = Settings(
        1e-3,
        0.1,
        3,
        8,
        0.5,
        "none",
        "lesion",
        4,
        "focal",
        0.1,
        "balanced",
        0.0,
        False,
        0.5,
        0,
        False,
        0.5,
        "on",
        "fp32",
    )
    assert parse("--params", params(changed.as_dict())) == changed
    assert not set(changed.as_dict().items()) & set(Settings().as_dict().items())  # every one is changed


@pytest.mark.parametrize(
    "content, reason",
    [
        ("no json", "cannot be read as JSON (Expecting value"),
        ([1, 2], "no JSON object"),
        ({"batch-size": 8}, "unknown setting 'batch-size'. Use lr, wd, "),
        ({"lr": 0}, "lr: '0' is not a number above 0"),
        ({"augment": True}, "augment: 'True' is not one of on, off"),
    ],
)
def test_bad_files_are_one_line_that_names_them(params, content, reason):  # test_bad_input.py has more
    path = params(content)
    assert (message := refusal(parse, "--params", path)).startswith(path) and reason in message


@pytest.mark.parametrize("view, scanners, varies", [
    ("square", "auto", False), ("frame", "auto", True), ("lesion", "auto", True), ("square", "on", True),
    ("lesion", "off", False),
])  # fmt: skip
def test_auto_varies_what_differs_between_scanners_in_frames_only(view, scanners, varies):
    assert Settings(view=view, scanners=scanners).varies_scanners == varies
