"""The pages say what the committed results say."""

from pathlib import Path

from results import experiments, log, table

ROOT = Path(__file__).parent.parent


def test_the_tables_of_results_are_made_from_the_result_files():
    made = table.table(table.our_rows() + table.published_rows())
    assert made in (ROOT / "docs" / "results.md").read_text()
    first_page = (ROOT / "README.md").read_text().split("\n## Results\n")[1].split("\n## ")[0]
    rows = [line for line in first_page.splitlines() if line.startswith("|")]
    assert 3 <= len(rows) <= 9 and set(rows) <= set(made.splitlines())


def test_the_table_of_experiments_is_made_from_their_rows():
    assert experiments.markdown_table(log.read(experiments.TABLE)) in (ROOT / "results" / "README.md").read_text()
