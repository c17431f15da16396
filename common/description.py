"""What a run and its .onnx file keep of their data: `data.Found.describe`, read back."""

LARGEST = 1024  # pixels a side; a model of more is no file of ours
KINDS = {"size": int, "seed": int, "md5": str, "synthetic": bool, "trained_on": list, "sets": list}
VIEWS = ("square", "frame", "lesion")


def describes_data(value) -> bool:
    """Whether a value out of a file is what `data.Found.describe` gives, and "trained_on", the splits of training."""
    known = isinstance(value, dict) and all(type(value.get(key)) is kind for key, kind in KINDS.items())
    sized = known and 8 <= value["size"] <= LARGEST and value.get("view", "square") in VIEWS
    return sized and all({"spec", "hospital", "md5"} <= set(one) for one in value["sets"])


def notice(described: dict) -> str | None:
    """What everything made from phantoms says of them; None for real images."""
    side = described["size"]
    return f"PHANTOM data {side}×{side} (generated, not ultrasound)" if described["synthetic"] else None
