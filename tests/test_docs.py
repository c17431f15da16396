"""README and docs: links lead somewhere, flags exist, console blocks print what they show, and sentences are short.

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
PROSE = sorted({*PAGES, *REPO.glob("results/*.md")})
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
MOST_WORDS = 30  # of a sentence; longer ones need a second reading
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
DECIMAL = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The addresses that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_and_every_file_named_is_there(page):
    text = read(page)
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for name in re.findall(r"`((?:common|tests|results|web)/[\w/]+\.(?:py|csv|png))`", text):
        assert (REPO / name).exists(), name


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose, without code blocks, tables, headings and front matter.

    A list item is a paragraph of its own. A span of code counts as one word, and a link as its words.
    """
    text = re.sub(r"\A---\n.*?^---$|^```.*?^```$|^<!--.*?-->$", "", text, flags=re.M | re.S)
    text = re.sub(r"(?<=\n\n)(?: {4}.*\n|\n)+", "\n", text)  # indented code
    text = re.sub(r"^ *(?:\||#|!\[).*$", "", text, flags=re.M)
    text = re.sub(r"`[^`]+`", "CODE", text)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) | · ", text, flags=re.M)
    ends = re.compile(r"(?<=[.!?])(?<!et al\.)[*)\]\"]*\s+")
    return [" ".join(one.split()) for paragraph in paragraphs for one in ends.split(paragraph) if one.strip()]


def test_a_page_is_divided_into_its_sentences():
    text = "# Head\n\nOne `a b. c` two. Three [four](x.md).\n\n    code. Code\n\n- **Five.** Six et al. 7\n- 8\n  9\n"
    assert sentences(text) == ["One CODE two.", "Three four.", "**Five.", "Six et al. 7", "8 9"]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(REPO)))
def test_no_sentence_is_long(page):
    long = [sentence for sentence in sentences(read(page)) if len(sentence.split()) > MOST_WORDS]
    assert not long, "\n".join(f"{len(sentence.split())} words: {sentence}" for sentence in long)


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
