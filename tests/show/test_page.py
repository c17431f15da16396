import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from common import intervals, metrics
from common.errors import UserError
from common.show import page

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's elements with attributes and text; `path` must be empty in the end, or tags do not match."""

    def __init__(self, html: str):
        super().__init__()
        self.path, self.elements, self.text = [], [], {}
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
def pictures(tmp_path):
    for name, size in (("a.png", (300, 150)), ("b.png", (30, 60))):
        Image.new("RGB", size, "white").save(tmp_path / name)
    first = page.Picture(tmp_path / "a.png", "A curve", "caption")
    return [first, page.Picture(tmp_path / "b.png", 'Say "b" & <c>')]


def write(path, *sections, title="A run") -> tuple[str, Page]:
    page.write_html(path / "report.html", title, sections)
    html = (path / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


def test_the_page_is_whole_and_holds_everything_itself(tmp_path, pictures):
    table = page.Table(["", "AUC"], [["test", "0.9\n[.8 1.0]"]], "two lines")
    html, found = write(tmp_path, page.Section("Metrics", ["One.", "Two."], [table], pictures))
    assert found.path == [] and html.startswith("<!DOCTYPE html>")
    for picture, image in zip(pictures, found.all("img"), strict=True):
        kind, content = image["src"].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) == picture.path.read_bytes()
        assert image["alt"] == picture.alt
    assert [(image["width"], image["height"]) for image in found.all("img")] == [("192", "96"), ("19", "38")]
    assert found.text["figcaption"] == ["two lines", "caption"]
    assert found.text["h1"] == found.text["title"] == ["A run"] and found.text["h2"] == ["Metrics"]
    assert found.text["p"] == [page.DISCLAIMER, "One.", "Two."]
    assert found.all("html") == [{"lang": "en"}]


def test_nothing_is_fetched_and_nothing_runs(tmp_path, pictures):
    html, found = write(tmp_path, page.Section("Figures", pictures=pictures))
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    links = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert links and all(link.startswith("data:") for link in links)
    assert not found.all("script")
    (policy,) = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_it_is_made_for_phones_and_for_dark_rooms(tmp_path):
    html, found = write(tmp_path)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.all("meta")
    assert "@media (prefers-color-scheme: dark)" in html


def test_tables_have_headers_with_scope(tmp_path):
    table = page.Table(["", "n", "AUC"], [["test", "156", "0.9"], ["clean test", "93", "0.8"]], "caption")
    html, found = write(tmp_path, page.Section("Metrics", tables=[table]))
    assert [th["scope"] for th in found.all("th")] == ["col", "col", "row", "row"]
    assert found.text["th"] == ["n", "AUC", "test", "clean test"]
    assert found.text["td"] == ["156", "0.9", "93", "0.8"] and len(found.all("td")) == 5  # the corner is empty
    (region,) = [div for div in found.all("div") if div.get("role") == "region"]
    assert region["aria-label"] == "caption" and region["tabindex"] == "0"


def test_every_text_is_escaped(tmp_path, pictures):
    nasty = """<script>alert("1")</script> & $title '"""
    table = page.Table([nasty, nasty], [[nasty, nasty]], nasty)
    picture = page.Picture(pictures[0].path, nasty, nasty)
    html, found = write(tmp_path, page.Section(nasty, [nasty], [table], [picture]), title=nasty)
    assert not found.all("script") and found.path == []
    for tag in ("title", "h1", "h2", "th", "td", "figcaption"):
        assert "".join(found.text[tag]).startswith(nasty), tag
    assert nasty in found.text["p"] and found.all("img")[0]["alt"] == nasty


def test_metrics_table_has_intervals_below_the_metrics():
    labels, probabilities = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.4, 0.9])
    summary = intervals.summary(labels, probabilities, resamples=50)
    table = page.metrics_table({"test": summary}, "At 0.5.")
    assert list(table.header[:4]) == ["", "images", "accuracy", "AUC"] and table.caption == "At 0.5."
    (row,) = table.rows
    assert len(row) == len(table.header) and row[:2] == ["test", "5"]
    low, high = summary["auc_ci95"]
    assert row[3] == f"0.8333\n[{low:.3f} {high:.3f}]".replace("[0.", "[.").replace(" 0.", " .")


def test_metrics_table_says_why_something_is_undefined():
    summary = intervals.summary([0, 0], [0.1, 0.2], resamples=5)
    table = page.metrics_table({"val": summary})
    assert table.rows[0][3] == "n/a"
    assert "n/a: AUC is undefined where a class is absent." in table.caption
    assert "specificity" not in table.caption


def test_metrics_table_without_intervals():
    summary = metrics.summary([0, 1], np.array([0.1, 0.9]))
    assert page.metrics_table({"fold 1": summary}).rows[0][2:4] == ["1.0000", "1.0000"]


def test_a_missing_picture_leaves_the_old_report(tmp_path, pictures):
    html, _ = write(tmp_path, page.Section("First"))
    with pytest.raises(FileNotFoundError):
        write(tmp_path, page.Section("Second", pictures=[page.Picture(tmp_path / "absent.png", "")]))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.png", "report.html"]


def test_an_unwritable_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        page.write_html(tmp_path / "absent" / "report.html", "A run", [])
