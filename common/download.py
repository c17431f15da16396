"""Downloads that come to an end, whatever the network does."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http.client import HTTPException
from urllib.request import Request, urlopen

PATIENCE = 10.0  # seconds until the first answer, and between any two parts of a file


def ask(url: str) -> None:
    with suppress(OSError, HTTPException):  # the download will say what is wrong
        urlopen(Request(url, method="HEAD"), timeout=2 * PATIENCE).close()


@contextmanager
def limited(url: str) -> Iterator[None]:
    """What is downloaded from a URL meanwhile waits no longer than PATIENCE; what its downloader prints goes to stderr.
    Asked first in a thread, since the name's look-up has no time-out, and each of a host's addresses has its own.
    Raises: OSError, also of what is no HTTP."""
    asking = threading.Thread(target=ask, args=[url], daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if asking.is_alive():
        raise TimeoutError(f"no answer in {PATIENCE:g} seconds")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except HTTPException as error:
        raise OSError(f"no HTTP: {error!r}") from None
    finally:
        socket.setdefaulttimeout(before)
