"""What the user can mend.

An *error* here is a fault of the input (a file, a setting, a machine), not of the
program: commands print its message as one line, without a traceback, and exit with 2.
Every message says what must hold, what came instead, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """The user can mend it: the message is one line that says how."""


class CaseError(UserError):
    """One case cannot be used; the others may go on."""


class StorageError(UserError):
    """Results cannot be written to their place; once that is mended, all goes on."""


class DeviceError(UserError):
    """A GPU does not compute; once it is mended or gone, all goes on."""


_LONGEST = 160
_MOST_LISTED = 10


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, and cut where it is long."""
    text = value if isinstance(value, str) else repr(value)
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def printable(message: str) -> str:
    """Return a message whose lines can be printed: what names in files hold may move cursors."""
    lines = message.split("\n")
    return "\n".join(line if line.isprintable() else repr(line)[1:-1] for line in lines)


def listed(faults: Sequence[str]) -> str:
    """Return the first of many faults on one line, and how many more there are."""
    more = len(faults) - _MOST_LISTED
    return "; ".join([*faults[:_MOST_LISTED], *([f"and {more} more"] if more > 0 else [])])
