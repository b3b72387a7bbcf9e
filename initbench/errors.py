"""Every error a user can cause, in one tree, with the exit code each ends in.

    InitbenchError                 4   a bug in initbench, when raised as itself
    ├── UsageError                 2   a command was called in a way it cannot serve
    │   └── UnknownNameError       2   a name that no registry entry carries
    ├── ConfigError                2   one or more faults of config files or overrides
    ├── DataError                  3   a data set cannot be found, fetched or trusted
    ├── StoreError                 3   runs/ cannot be read, written or claimed
    ├── DeviceError                3   the device asked for is not there
    ├── OutputError                3   what a command prints cannot be written
    ├── AllocationError            3   more memory is needed than there is
    └── RunFailedError             1   a run raised instead of giving a result

A diverged run is a result, not an error. `Terminated` is what a signal becomes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


class InitbenchError(Exception):
    """Base of all errors that initbench raises on purpose."""

    exit_code: ClassVar[int] = 4


class UsageError(InitbenchError):
    """A command was called in a way it cannot serve."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is in no registry; the message names the nearest valid one."""


class DataError(InitbenchError):
    """A data set cannot be found, fetched, parsed or trusted."""

    exit_code = 3


class StoreError(InitbenchError):
    """The run store cannot be read, written or claimed."""

    exit_code = 3


class DeviceError(InitbenchError):
    """The device asked for is not there."""

    exit_code = 3


class OutputError(InitbenchError):
    """What a command prints cannot be written."""

    exit_code = 3


class AllocationError(InitbenchError):
    """More memory is needed than there is."""

    exit_code = 3


class RunFailedError(InitbenchError):
    """A run raised instead of giving a result."""

    exit_code = 1


@dataclass(frozen=True)
class ConfigIssue:
    """One thing wrong with a config: where it stands, which key, what is wrong."""

    where: str
    """`file:line:column`, or `override` for a key=value argument."""
    key: str
    """Dotted path of the key, empty when the fault belongs to the whole file."""
    problem: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.problem) if part)


class ConfigError(InitbenchError):
    """All faults of one or more config files, gathered and raised once."""

    exit_code = 2

    def __init__(self, issues: Iterable[ConfigIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


class Terminated(BaseException):
    """SIGINT or SIGTERM as an exception, so that a run can be marked on the way out."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__()
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + int(self.signum)


@contextmanager
def reporting_user_code(subject: str, *, exit_advice: str = "") -> Iterator[None]:
    """Run the user's code inside the block; what it raises becomes a UsageError that begins with `subject`.

    An attempt to end the process (`sys.exit`, a failing `parse_args`) is such a fault too: passed on, it
    would end initbench with an exit code that says nothing of what was asked. `exit_advice` is added to it.
    Signals (KeyboardInterrupt, Terminated) and errors of initbench's own pass unchanged.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated, InitbenchError):
        raise
    except Exception as error:
        raise UsageError(f"{subject} {_describe_error(error)}") from error
    except BaseException as error:
        advice = f"; {exit_advice}" if exit_advice else ""
        raise UsageError(f"{subject} it ends the program ({_describe_error(error)}){advice}") from error


def _describe_error(error: BaseException) -> str:
    """The error's type and the first line of its message, which a user's class may fail to give."""
    try:
        lines = str(error).splitlines()
    except Exception:
        lines = []
    name = type(error).__name__
    return f"{name}: {lines[0]}" if lines and lines[0] else name
