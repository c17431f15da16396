"""The checklist page answers every part of TRIPOD+AI once, in order."""

import re

from conftest import REPO

PARTS = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
).split()


def test_every_part_has_an_answer_or_says_that_there_is_none():
    page = (REPO / "docs" / "checklist.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+[a-g]?) \| (D|E|D;E) \| (.+?) \| (.+) \|$", page, re.M)
    assert [part for part, *_ in rows] == PARTS and len(PARTS) == 52
    for part, _, _, answer in rows:
        assert "](" in answer or re.match(r"N(one|o|ot)\b", answer), part
