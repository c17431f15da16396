from common.deploy import latency


def test_a_batch_holds_no_more_images_than_there_are(untrained, onnx_model, phantoms, monkeypatch):
    for name, few in {"SECONDS": 0, "FEWEST": 1, "WARM_UP": 0, "BATCHES": (1, 64), "THREADS": (1,)}.items():
        monkeypatch.setattr(latency, name, few)
    monkeypatch.setattr(latency, "process", lambda path: {})
    monkeypatch.setattr(latency, "timings", lambda call: [0.5] * (call() is not None))
    for n, batches in ((48, [1, 48]), (1, [1])):
        rows = latency.measure({"fp32": onnx_model.path}, untrained, phantoms[:n])["latency"]
        assert [row["batch"] for row in rows if row["model"] == "fp32"] == batches
        assert all(row["images_per_second"] == row["batch"] / 0.5 for row in rows)
