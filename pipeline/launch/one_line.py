"""Error messages of one line: text of users and services, shortened and escaped, and a parser that prints them."""

import argparse
from typing import NoReturn

# Characters of a value that an error message repeats, and of what a service says about a failed call.
VALUE_LIMIT, REASON_LIMIT = 120, 500


def value(text: str) -> str:
    """Return what a user wrote, with control characters escaped, shortened to about VALUE_LIMIT characters."""
    return _shortened(_escaped(text), len(text), VALUE_LIMIT)


def reason(error: object) -> str:
    """Return what an error says, as one line of at most about REASON_LIMIT characters."""
    text = " ".join(str(error).split())
    return _shortened(_escaped(text), len(text), REASON_LIMIT)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a wrong command line as one line on stderr, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"error: {reason(message).removeprefix('argument ')}\n")


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str, length: int, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit - 20]}...{text[-20:]} ({length:,} characters)"
