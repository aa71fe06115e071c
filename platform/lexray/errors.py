"""Errors that a user meets: one line that says what was wrong, where, and what to do."""

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TOO_MANY_REFUSED = 3
#: As a shell reports a process that Ctrl-C ended.
EXIT_INTERRUPTED = 130


class LexrayError(Exception):
    """A failure with a message for a person; the command line prints it without a stack trace.

    The attribute `exit_code` is what the process ends with.
    """

    exit_code = EXIT_FAILED


class ConfigError(LexrayError):
    """Wrong usage or configuration: the message names the key and what it takes."""

    exit_code = EXIT_USAGE


def first_line(error: BaseException) -> str:
    """First line of what an error says, where what follows is a trace or advice; else its type's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """All that an error says, in one line, where every line of it may matter; else its type's name."""
    return " ".join(str(error).split()) or type(error).__name__


def last_line(text: str) -> str:
    """Last line of a text that is not empty: of a stack trace, the error itself."""
    return text.rstrip().rpartition("\n")[2].strip()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'NEAREST'?`` for the end of a message on an unknown word; empty where nothing is known."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f", did you mean '{nearest[0]}'?" if nearest else ""


class RefusedInput(LexrayError):
    """One input that cannot be used. Jobs put it into quarantine and go on.

    Parameters
    ----------
    reason : str
        A short code such as ``unknown_mission``, the same for every file refused for this cause.
    detail : str
        What was found, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exceptions pickle by their args alone; ours travel between Ray workers with both fields.
        return type(self), (self.reason, self.detail)
