"""How a command fails: an expected error is one line on stderr and status 1, not a traceback."""

import argparse
import functools
import sys
from collections.abc import Callable

Run = Callable[[argparse.Namespace], int]


def command(run: Run, errors: Callable[[], tuple[type[Exception], ...]]) -> Run:
    """Wrap a command so that expected errors become a message and status 1.

    Args:
        run: The command; returns the exit status.
        errors: Returns the expected errors. It is called only after a failure, so that their
            modules don't slow down the start.
    """

    @functools.wraps(run)
    def wrapped(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except Exception as error:
            if not isinstance(error, errors()):
                raise
            print(error, file=sys.stderr)
            return 1

    return wrapped
