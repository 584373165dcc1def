"""Error messages of one line: text of users and services made fit for them, and a parser that prints them."""

import argparse
from typing import NoReturn

# Characters of a value that an error message repeats, and of what a service says of a failed call.
VALUE_LIMIT, REASON_LIMIT = 120, 500


def value(text: str) -> str:
    """Return what a user wrote: control characters escaped, and shortened to about VALUE_LIMIT characters."""
    return _shortened(_escaped(text), len(text), VALUE_LIMIT)


def reason(error: object) -> str:
    """Return what an error says, as one line of at most about REASON_LIMIT characters."""
    text = " ".join(str(error).split())
    return _shortened(_escaped(text), len(text), REASON_LIMIT)


class Parser(argparse.ArgumentParser):
    """argparse with one line on stderr, `error: ...`, in place of its usage, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(2, f"error: {reason(message).removeprefix('argument ')}\n")


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str, length: int, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit - 20]}...{text[-20:]} ({length:,} characters)"
