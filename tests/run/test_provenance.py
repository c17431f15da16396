from common import data
from common.run import provenance

FOUND = data.find(["phantom"], None, 28)


def test_a_copy_without_git_does_not_claim_to_be_clean(monkeypatch):
    assert provenance.command("no-such-program-anywhere") is None and provenance.command("false") is None
    monkeypatch.setattr(provenance, "command", lambda *words: None)
    described = provenance.provenance(FOUND, 1)
    assert described["commit"] is None and described["uncommitted_changes"] is None


def test_what_only_tune_and_export_need_may_be_absent(monkeypatch):
    absent = ("optuna", "onnx", "onnxscript", "onnxruntime")

    def version(package: str) -> str:
        if package in absent:
            raise provenance.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(provenance, "version", version)
    packages = provenance.provenance(FOUND, 1)["packages"]
    assert {name for name in packages if packages[name] is None} == {*absent} and packages["torch"] == "1.0"
