from pathlib import Path

from common import data
from common.run import provenance

REAL = data.Source("own.npz", 28, Path("own.npz"), "1234")


def test_a_copy_without_git_does_not_claim_to_be_clean(monkeypatch):
    assert provenance.command("no-such-program-anywhere") is None and provenance.command("false") is None
    monkeypatch.setattr(provenance, "command", lambda *words: None)
    described = provenance.provenance(REAL, 1)
    assert described["commit"] is None and described["uncommitted_changes"] is None
