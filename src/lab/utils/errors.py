"""One kind of error for everything a user can mend: a line that says what, where, and what to do."""


class LabError(Exception):
    """Something the user can mend. The message is one line; ``python -m lab`` prints it and exits with status 1."""
