"""README and docs: their links lead somewhere, their flags exist, and their console blocks print what they show.

A console block holds commands after "$" and below each, in order, lines of its output; lines may be left out. The words
and whole numbers must be the same; decimals may differ by 0.05, because a processor that trains in bf16, or adds in
another order, ends with other weights.
"""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REPO

PAGES = [*REPO.glob("*.md"), *REPO.glob("docs/*.md"), REPO / "models/README.md", REPO / "results/README.md"]
RECORDS = [REPO / "docs/results.md", REPO / "results/README.md"]  # pages with commands of version 1
GONE = {"--also", "--calibrate-on", "--compare-groups", "--upsample", "--frozen-stages"}  # flags of version 1
OTHERS = {
    "--data-binary",
    "--index-url",
    "--prefix",
    "--bind",
    "--seeds",
    "--pwprompt",
    "--owner",
    "--check",
}  # flags of other programs
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
DECIMAL = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The addresses that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_and_every_file_named_is_there(page):
    text = read(page)
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for name in re.findall(r"`((?:common|tests|results|web)/[\w/]+\.(?:py|csv|png))`", text):
        assert (REPO / name).exists(), name


def test_the_first_page_is_short_and_the_version_has_one_home():
    assert len(read(REPO / "README.md").splitlines()) <= 200
    (version,) = re.findall(r"^version: (.*)$", read(REPO / "CITATION.cff"), re.M)
    assert re.search(r"^## (.*)$", read(REPO / "CHANGELOG.md"), re.M)[1] == version


def test_every_flag_on_a_page_is_there(runs):
    scripts = [path.name for path in REPO.glob("*.py")]
    helps = {script: set(FLAG.findall(runs(script, "--help")[0])) for script in scripts}
    everywhere = OTHERS.union(*helps.values())
    for page in PAGES:
        gone = GONE if page in RECORDS else set()
        for script, words in re.findall(r"python (\w+\.py)([^`|\n]*)", read(page)):
            assert set(FLAG.findall(words)) <= helps[script] | gone, f"{page}: {script}{words}"
        if page.name != "CHANGELOG.md":
            assert set(FLAG.findall(read(page))) <= everywhere | gone, page


def parts(line: str) -> tuple[list[str], list[float]]:
    """A line's words and whole numbers, and its decimals."""
    return DECIMAL.sub("#", line).split(), [float(number) for number in DECIMAL.findall(line)]


def console_blocks() -> list:
    """Those that train are for the slow tests."""
    found = [(page.name, block) for page in PAGES for block in re.findall(r"```console\n(.*?)```", read(page), re.S)]
    slow = [pytest.mark.slow]
    return [pytest.param(block, id=name, marks=slow * ("--epochs" in block)) for name, block in found]


@pytest.mark.parametrize("block", console_blocks())
def test_a_console_block_prints_what_it_shows(block, runs, tmp_path, monkeypatch, request):
    if "audit.py" in block:
        monkeypatch.setenv("MEDMNIST_ROOT", str(request.getfixturevalue("breastmnist_root")))
    for folder in ("models", "web"):
        (tmp_path / folder).symlink_to(REPO / folder)
    monkeypatch.chdir(tmp_path)
    for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, *shown = step.splitlines()
        out, _ = runs(*shlex.split(command)[1:], *["--threads", "1"] * ("audit" not in command))
        printed = iter(parts(line) for line in out.splitlines())
        for words, decimals in map(parts, filter(None, shown)):
            found = next((numbers for other, numbers in printed if other == words), None)
            assert found == pytest.approx(decimals, abs=0.05), f"{command}: {' '.join(words)}\n{out}"
