"""The one error a request can end with, and the progress lines on stderr."""

import difflib
import sys


class RequestError(Exception):
    """A request that cannot be served; the message is one line: where, found, expected."""


def nearest(found, names):
    """A hint such as "; did you mean 'wikitext2'?", or nothing when no name is close."""
    close = difflib.get_close_matches(found, list(names), n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else ""


def require_name(where, found, names):
    """Raises RequestError unless `found` is one of `names`."""
    if found not in names:
        expected = ", ".join(names)
        raise RequestError(
            f"{where}: found '{found}', expected one of {expected}{nearest(found, names)}"
        )


def progress(line):
    """One short line on stderr; standard output stays free for answers."""
    print(f"data: {line}", file=sys.stderr, flush=True)
