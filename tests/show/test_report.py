import base64
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from common_fixtures import summary_with_intervals
from PIL import Image

from common import comparison, data, intervals, scoring
from common.calibration import Calibration
from common.show.report import write_report

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's elements with attributes and text; `path` must be empty in the end, or tags do not match."""

    def __init__(self, html: str):
        super().__init__()
        self.path: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.path += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self.path.pop() == tag

    def handle_data(self, text):
        if self.path and text.strip():
            self.text.setdefault(self.path[-1], []).append(text)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


NASTY = """<script>alert("1")</script> & $title {{ title }} '"""
LABELS, PROBABILITIES = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.4, 0.9])


@pytest.fixture
def report(tmp_path):
    """A function that writes a report, in which every text is `text`, and returns (HTML, Page). Its clean images are
    all benign, and its pictures are a.png and b.png in tmp_path. hospital: of each image; more: of the evaluation."""
    for name, size in (("a.png", (300, 150)), ("b.png", (30, 60))):
        Image.new("RGB", size, "white").save(tmp_path / name)

    def write(text: str = "A text", hospital=None, **more) -> tuple[str, Page]:
        patients = {"hospital": hospital or [text] * 5, "patient": ["q", "q", "", "p", "p"]}
        images = data.of_arrays(np.zeros((5, 28, 28), np.uint8), LABELS, "test", text)
        images = replace(images, table=images.table.assign(**patients))
        scored = scoring.Scored(text, images, PROBABILITIES, np.arange(5), {"clean": np.arange(5) < 2})
        calibration = Calibration(1.5, 0.0, 0.25, text)
        evaluation = scoring.summary(scoring.score_parts([scored], calibration, 50), calibration)
        compared = comparison.compare(
            LABELS, PROBABILITIES, 1 - PROBABILITIES, scored.resample_counts(50), (text, text)
        )
        evaluation |= {"model": text, "split": text, "images": text, "predictions": text, "notes": [text]}
        pictures = {text: tmp_path / "a.png", "B curve": tmp_path / "b.png"}
        write_report(tmp_path / "report.html", evaluation | {"comparison": compared} | more, pictures)
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        return html, Page(html)

    return write


def test_the_page_is_whole_and_holds_everything_itself(report, tmp_path):
    html, found = report()
    assert found.path == [] and html.startswith("<!DOCTYPE html>")
    for name, image in zip(("a.png", "b.png"), found.all("img"), strict=True):
        kind, content = image["src"].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) == (tmp_path / name).read_bytes()
    assert [image["alt"] for image in found.all("img")] == ["A text of A text", "B curve of A text"]
    assert [(image["width"], image["height"]) for image in found.all("img")] == [("192", "96"), ("19", "38")]
    assert found.text["figcaption"][-2:] == ["A text", "B curve"]
    assert found.text["h1"] == found.text["title"] == ["Evaluation of A text on the A text split"]
    assert found.text["h2"] == ["Metrics", "Comparison", "Figures"]
    assert "Research only, not a medical device." in found.text["p"] and "A text" in found.text["p"]
    # nothing is fetched and nothing runs
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    links = [attributes[name] for _, attributes in found.elements for name in ("src", "href") if name in attributes]
    assert links and all(link.startswith("data:") for link in links)
    (policy,) = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_it_serves_phones_dark_rooms_and_screen_readers(report):
    html, found = report()
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.all("meta")
    assert "@media (prefers-color-scheme: dark)" in html and found.all("html") == [{"lang": "en"}]
    rows = ("A text", "A text, per patient", "clean A text")
    measures = ("Brier score", "ECE", "in the large")
    calibration = [*((name, "col") for name in measures), *((name, "row") for name in rows)]
    heads = list(zip(found.text["th"], (th["scope"] for th in found.all("th")), strict=True))
    assert any(heads[i : i + 6] == calibration for i in range(len(heads)))
    assert len(found.all("td")) == len(found.text["td"]) + len(found.all("table"))  # only the corners are empty
    regions = [div for div in found.all("div") if div.get("role") == "region"]
    assert [region["aria-label"] for region in regions] == found.text["figcaption"][: len(found.all("table"))]
    assert all(region["tabindex"] == "0" for region in regions)


def test_every_text_is_escaped(report):
    _, found = report(NASTY)
    assert not found.all("script") and found.path == []
    for tag in ("title", "h1", "p", "th", "figcaption"):
        assert any(NASTY in text for text in found.text[tag]), tag
    assert found.all("img")[0]["alt"] == f"{NASTY} of {NASTY}"


def test_metrics_have_their_intervals_below_and_say_why_something_is_undefined(report):
    _, found = report()
    summary = summary_with_intervals(LABELS, PROBABILITIES, intervals.resample_counts(LABELS, resamples=50))
    assert found.text["th"][:3] == ["images", "accuracy", "AUC"] and found.text["td"][0] == "5"
    low, high = summary["auc_ci95"]
    assert found.text["td"][2] == f"0.8333\n[{low:.3f} {high:.3f}]".replace("[0.", "[.").replace(" 0.", " .")
    assert [found.text["td"][i] for i in (8, 16, 18)] == ["2", "2", "n/a"]  # two patients, two clean images
    caption = found.text["figcaption"][0]
    assert caption.startswith("At the standard threshold 0.5. n/a: AUC is undefined where a class is absent.")
    assert "specificity" not in caption


def test_several_hospitals_have_a_row_each(report):
    _, found = report("test", hospital=["a", "a", "b", "b", "a"])
    rows = ["test", "test, per patient", "clean test", "test, a", "test, a, per patient", "test, b"]
    names = [text for text, head in zip(found.text["th"], found.all("th"), strict=True) if head["scope"] == "row"]
    assert names[: len(rows)] == rows and names[: 3 * len(rows)] == rows * 3
    assert [found.text["td"][8 * i] for i in range(len(rows))] == ["5", "3", "2", "3", "2", "2"]


@pytest.mark.parametrize("compared", [None, {"against": "b", "conclusion": "nothing can be concluded"}])
def test_a_comparison_may_be_absent_or_without_figures(report, compared):
    _, found = report(comparison=compared)
    assert ("Comparison" in found.text["h2"]) == (compared is not None)
    assert ("nothing can be concluded" in found.text["p"]) == (compared is not None)
    assert not any("Paired bootstrap" in text for text in found.text["figcaption"])
