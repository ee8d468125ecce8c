"""The one exception a user is meant to read."""


class UsageError(Exception):
    """Bad input: one sentence that says what is wrong, where, and what to do.

    Verbs print the sentence without a traceback and exit with code 2.
    """
