"""The README says what the committed results say."""

from pathlib import Path

from results import experiments, log, table

ROOT = Path(__file__).parent.parent


def test_the_table_in_the_readme_is_made_from_the_result_files():
    assert table.table(table.our_rows() + table.published_rows()) in (ROOT / "README.md").read_text()


def test_the_table_of_experiments_is_made_from_their_rows():
    assert experiments.markdown_table(log.read(experiments.TABLE)) in (ROOT / "results" / "README.md").read_text()
