"""How long work shows how far it is: a tqdm bar on a terminal; elsewhere a line an epoch, or one now and then."""

import sys
import threading
from collections.abc import Iterable, Iterator

from tqdm import tqdm

tqdm.set_lock(threading.RLock())  # its own would also be a semaphore, which a killed worker leaves to the system

COLUMNS = (("train_loss", ".4f"), ("val_loss", ".4f"), ("val_accuracy", ".4f"), ("val_auc", ".4f"), ("seconds", ".1f"))


class Progress(tqdm):
    """Context manager around the epochs of one `fit`, `done` of which an earlier process did; all output goes to
    stderr, results alone go to stdout."""

    def __init__(self, name: str, epochs: int, done: int = 0):
        off = not sys.stderr.isatty()
        super().__init__(total=epochs, initial=done, desc=name, unit="epoch", leave=False, disable=off)
        self.name = name
        if done:
            print(f"{name}  goes on after epoch {done:>3}/{epochs}", file=sys.stderr, flush=True)

    def show(self, entry: dict) -> None:
        """Show an epoch's history entry."""
        shown = {column: format(entry[column], spec) for column, spec in COLUMNS if column in entry}
        self.set_postfix(shown, refresh=False)
        self.update()
        if self.disable:
            values = "  ".join(f"{column} {value:>6}" for column, value in shown.items())
            print(f"{self.name}  epoch {entry['epoch']:>3}/{self.total}  {values}", file=sys.stderr, flush=True)


def shown(items: Iterable, what: str, total: int | None = None) -> Iterator:
    """The items, with a count of them on stderr when they take longer than a second."""
    seldom = 0.1 if sys.stderr.isatty() else 10
    return iter(tqdm(items, what, total, unit="image", leave=False, delay=1, mininterval=seldom))
