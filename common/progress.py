"""Show progress: a tqdm bar on a terminal, otherwise a line for each epoch or for a number of items."""

import sys
import threading
from collections.abc import Iterable, Iterator

from tqdm import tqdm

tqdm.set_lock(threading.RLock())  # the default has a semaphore, which a killed worker leaves behind

COLUMNS = (("train_loss", ".4f"), ("val_loss", ".4f"), ("val_accuracy", ".4f"), ("val_auc", ".4f"), ("seconds", ".1f"))


class Progress(tqdm):
    """Context manager that shows the epochs of one `fit` on stderr. stdout is for results only.

    Args: done: number of epochs that an earlier process did.
    """

    def __init__(self, name: str, epochs: int, done: int = 0):
        off = not sys.stderr.isatty()
        super().__init__(total=epochs, initial=done, desc=name, unit="epoch", leave=False, disable=off)
        self.name = name
        if done:
            print(f"{name}  goes on after epoch {done:>3}/{epochs}", file=sys.stderr, flush=True)

    def show(self, entry: dict) -> None:
        """Show the history entry of an epoch."""
        shown = {column: format(entry[column], spec) for column, spec in COLUMNS if column in entry}
        self.set_postfix(shown, refresh=False)
        self.update()
        if self.disable:
            values = "  ".join(f"{column} {value:>6}" for column, value in shown.items())
            print(f"{self.name}  epoch {entry['epoch']:>3}/{self.total}  {values}", file=sys.stderr, flush=True)


def shown(items: Iterable, what: str, total: int | None = None) -> Iterator:
    """Return an iterator over items. After one second, a count appears on stderr. what: label of the count."""
    seldom = 0.1 if sys.stderr.isatty() else 10
    return iter(tqdm(items, what, total, unit="image", leave=False, delay=1, mininterval=seldom))
