"""What the scripts share. Submodules load on first use, so `--help` and a bad flag answer before torch is imported."""

from importlib import import_module


def __getattr__(name: str):
    """Import `common.<name>` when it is first asked for (PEP 562)."""
    if name.startswith("_"):
        raise AttributeError(f"module 'common' has no attribute {name!r}")
    return import_module(f"common.{name}")
