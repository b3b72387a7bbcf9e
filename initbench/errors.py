"""Exception hierarchy of the errors that a user can cause, with the exit code of each.

    InitbenchError                 4   a bug in initbench, if raised directly
    ├── UsageError                 2   a command was called with invalid arguments
    │   ├── UnknownNameError       2   no registry entry has this name
    │   ├── NameTakenError         2   a plug-in registers a name that is taken
    │   └── MissingExtraError      2   an optional package that the command needs is not installed
    ├── ConfigError                2   one or more issues in config files or overrides
    ├── DataError                  3   a data set cannot be found, downloaded or verified
    ├── StoreError                 3   runs/ cannot be read, written or locked
    ├── DeviceError                3   the requested device is not available
    ├── OutputError                3   the output of a command cannot be written
    ├── AllocationError            3   more memory is needed than is available
    └── RunFailedError             1   a run raised an error instead of returning a result

A diverged run is a result, not an error. Signals are raised as `Terminated`.
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
    """A command was called with invalid arguments."""

    exit_code = 2


class UnknownNameError(UsageError):
    """No registry entry has this name; the message suggests the nearest valid one."""

    def __init__(self, message: str, component: str = "") -> None:
        super().__init__(message)
        self.component = component
        """The name, if it is that of a component such as an init scheme."""


class NameTakenError(UsageError):
    """A registry entry has a name or alias that another entry has."""


class MissingExtraError(UsageError):
    """An optional package that the command needs is not installed; the message has the install command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} need packages that are not installed: pip install 'initbench[{extra}]'")


class DataError(InitbenchError):
    """A data set cannot be found, downloaded, parsed or verified."""

    exit_code = 3


class StoreError(InitbenchError):
    """The run store cannot be read, written or locked."""

    exit_code = 3


class DeviceError(InitbenchError):
    """The requested device is not available."""

    exit_code = 3


class OutputError(InitbenchError):
    """The output of a command cannot be written."""

    exit_code = 3


class AllocationError(InitbenchError):
    """More memory is needed than is available."""

    exit_code = 3


class RunFailedError(InitbenchError):
    """A run raised an error instead of returning a result."""

    exit_code = 1


@dataclass(frozen=True)
class ConfigIssue:
    """One problem of a config, with its location and key."""

    where: str
    """`file:line:column`, or `override` for a key=value argument."""
    key: str
    """Dotted path of the key, empty if the issue concerns the whole file."""
    problem: str
    unknown_component: str = ""
    """Name of a component, such as an init scheme, that is not registered, if that is the problem."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.problem) if part)


class ConfigError(InitbenchError):
    """All issues of one or more config files, collected and raised once."""

    exit_code = 2

    def __init__(self, issues: Iterable[ConfigIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


class Terminated(BaseException):
    """SIGINT or SIGTERM as an exception, so that a run can be marked as interrupted before the exit."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__()
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """Exit code 128 + the signal's number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + int(self.signum)


@contextmanager
def reporting_user_code(subject: str, *, exit_advice: str = "") -> Iterator[None]:
    """Convert exceptions of the user's code inside the block to UsageErrors.

    An attempt to exit the process (`sys.exit`, a failing `parse_args`) is converted too: its exit code would
    be mistaken for the exit code of the initbench command. Signals (KeyboardInterrupt, Terminated) and
    initbench's own errors pass unchanged.

    Args:
        subject: Beginning of the message.
        exit_advice: Added to the message if the code tried to exit.

    Raises:
        UsageError: If the code inside the block raises.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated, InitbenchError):
        raise
    except Exception as error:
        raise UsageError(f"{subject} {_describe_error(error)}") from error
    except BaseException as error:
        advice = f"; {exit_advice}" if exit_advice else ""
        raise UsageError(f"{subject} it exits the process ({_describe_error(error)}){advice}") from error


def _describe_error(error: BaseException) -> str:
    """Return the error's type and the first line of its message; `str(error)` may itself fail."""
    try:
        lines = str(error).splitlines()
    except Exception:
        lines = []
    name = type(error).__name__
    return f"{name}: {lines[0]}" if lines and lines[0] else name
