"""Downloads that always end, even if the network hangs."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http.client import HTTPException
from urllib.request import Request, urlopen

PATIENCE = 10.0  # seconds until the first answer, and between any two parts of a file


def ask(url: str) -> None:
    with suppress(OSError, HTTPException):  # the download itself reports what is wrong
        urlopen(Request(url, method="HEAD"), timeout=2 * PATIENCE).close()


@contextmanager
def limited(url: str) -> Iterator[None]:
    """Limit the waiting time of downloads inside the block to PATIENCE, and send their output to stderr.

    A request in a thread comes first, because the look-up of a host name has no time-out.
    Raises: OSError, for example when there is no answer in time, or when the answer is not HTTP.
    """
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
        raise OSError(f"the answer is not HTTP: {error!r}") from None
    finally:
        socket.setdefaulttimeout(before)
