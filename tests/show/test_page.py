import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from common import intervals, metrics
from common.show import page

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

    def handle_data(self, data):
        if self.path:
            self.text.setdefault(self.path[-1], []).append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def pictures(tmp_path) -> dict:
    """{PNG file: what it shows, in words}."""
    for name, size in (("a.png", (300, 150)), ("b.png", (30, 60))):
        Image.new("RGB", size, "white").save(tmp_path / name)
    return {tmp_path / "a.png": "A curve", tmp_path / "b.png": 'Say "b" & <c>'}


def write(path, *sections: str, title="A run") -> tuple[str, Page]:
    page.write_html(path / "report.html", title, *sections)
    html = (path / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


def test_the_page_is_whole_and_holds_everything_itself(tmp_path, pictures):
    table = page.table(["", "AUC"], [["test", "0.9\n[.8 1.0]"]], "two lines")
    drawn = page.figures(*(page.picture(file, alt, "caption") for file, alt in pictures.items()))
    html, found = write(tmp_path, page.section("Metrics", page.paragraph("One."), page.paragraph("Two."), table, drawn))
    assert found.path == [] and html.startswith("<!DOCTYPE html>")
    for (file, alt), image in zip(pictures.items(), found.all("img"), strict=True):
        kind, content = image["src"].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) == file.read_bytes()
        assert image["alt"] == alt
    assert [(image["width"], image["height"]) for image in found.all("img")] == [("192", "96"), ("19", "38")]
    assert found.text["figcaption"] == ["two lines", "caption", "caption"]
    assert found.text["h1"] == found.text["title"] == ["A run"] and found.text["h2"] == ["Metrics"]
    assert found.text["p"] == [page.DISCLAIMER, "One.", "Two."]
    # nothing is fetched and nothing runs
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    links = [attributes[name] for _, attributes in found.elements for name in ("src", "href") if name in attributes]
    assert links and all(link.startswith("data:") for link in links)
    (policy,) = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_it_serves_phones_dark_rooms_and_screen_readers(tmp_path):
    rows = [["test", "156", "0.9"], ["clean test", "93", "0.8"]]
    html, found = write(tmp_path, page.table(["", "n", "AUC"], rows, "caption"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.all("meta")
    assert "@media (prefers-color-scheme: dark)" in html and found.all("html") == [{"lang": "en"}]
    assert [th["scope"] for th in found.all("th")] == ["col", "col", "row", "row"]
    assert found.text["th"] == ["n", "AUC", "test", "clean test"]
    assert found.text["td"] == ["156", "0.9", "93", "0.8"] and len(found.all("td")) == 5  # the corner is empty
    (region,) = [div for div in found.all("div") if div.get("role") == "region"]
    assert region["aria-label"] == "caption" and region["tabindex"] == "0"


def test_every_text_is_escaped(tmp_path, pictures):
    nasty = """<script>alert("1")</script> & $title '"""
    table = page.table([nasty, nasty], [[nasty, nasty]], nasty)
    picture = page.picture(next(iter(pictures)), nasty, nasty)
    _, found = write(tmp_path, page.section(nasty, page.paragraph(nasty), table, picture), title=nasty)
    assert not found.all("script") and found.path == []
    for tag in ("title", "h1", "h2", "th", "td", "figcaption"):
        assert "".join(found.text[tag]).startswith(nasty), tag
    assert nasty in found.text["p"] and found.all("img")[0]["alt"] == nasty


def test_metrics_have_their_intervals_below_and_say_why_something_is_undefined():
    labels, probabilities = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.4, 0.9])
    summary = intervals.summary(labels, probabilities, resamples=50)
    found = Page(page.metrics_table({"test": summary, "fold": metrics.summary([0, 0], [0.1, 0.2])}, "At 0.5."))
    assert found.text["th"][:3] == ["images", "accuracy", "AUC"] and found.text["td"][0] == "5"
    low, high = summary["auc_ci95"]
    assert found.text["td"][2] == f"0.8333\n[{low:.3f} {high:.3f}]".replace("[0.", "[.").replace(" 0.", " .")
    assert found.text["td"][8:11] == ["2", "1.0000", "n/a"]
    (caption,) = found.text["figcaption"]
    assert caption.startswith("At 0.5. n/a: AUC is undefined where a class is absent.") and "specificity" not in caption
