"""The one exception a user is meant to read."""


class UsageError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do.

    Verbs print the sentence without a traceback and exit with code 2.
    """


class Preempted(Exception):
    """The run was told to stop and has saved what it had; `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
