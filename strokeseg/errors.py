"""What the user can mend.

An *error* here is a fault of the input (a file, a setting, a machine), not of the
program: commands print its message as one line, without a traceback, and exit with 2.
Every message says what must hold, what came instead, where, and what to do next.
"""


class UserError(Exception):
    """The user can mend it: the message is one line that says how."""


class CaseError(UserError):
    """One case cannot be used; the others may go on."""
