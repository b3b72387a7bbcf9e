"""What SIGINT and SIGTERM do, at any moment of a command.

An exception that is raised in the middle of an import leaves modules half loaded, and libraries swallow it:
torch imports NumPy under an `except` of its own. So during an import a signal ends the process at once, and
where stored runs have to be marked first, it waits until the import is over. At any other moment it becomes
`errors.Terminated`.

This file is loaded before all others, so it imports what the interpreter has loaded already and nothing else.
"""

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_SECONDS_BETWEEN_TRIES = 0.02
_SECONDS_FOR_STEP = 3.0


class _State:
    """What the handlers know."""

    command_runs: bool = False
    """Whether `errors.Terminated` can be raised: there is somebody to catch it."""
    runs_to_mark: int = 0
    """How many parties would leave stored runs unmarked, were the process to end at once."""
    postponed: "int | None" = None
    """The signal that waits for the end of an import, or of a step of a training."""
    trainings: int = 0
    """How many trainings end at their next step, after a checkpoint, when a signal comes."""


def install_signal_handlers() -> None:
    """Handle SIGINT and SIGTERM from now on."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _handle)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _retry_signal)
    sys.unraisablehook = _handle_unraisable


def begin_command() -> None:
    """Let signals become `errors.Terminated` from now on."""
    _State.command_runs = True


class RunsToMark:
    """A context in which stored runs have to be marked before the process may end."""

    def __enter__(self) -> None:
        """Begin it."""
        _State.runs_to_mark += 1

    def __exit__(self, *_: object) -> None:
        """End it."""
        _State.runs_to_mark -= 1


class EndsAtStep:
    """A context in which a signal waits for the next step of a training, but for a few seconds at most.

    A second signal does not wait.
    """

    def __enter__(self) -> None:
        """Begin it."""
        _State.trainings += 1

    def __exit__(self, kind: "type[BaseException] | None", *_: object) -> None:
        """End it; raises `errors.Terminated` if a signal came."""
        _State.trainings -= 1
        if kind is None:
            raise_waiting_signal()


def is_signal_waiting() -> bool:
    """Whether a training is to end at this step."""
    return bool(_State.trainings) and _State.postponed is not None


def raise_waiting_signal() -> None:
    """Raise `errors.Terminated` if a signal has come that waits."""
    if _State.postponed is not None:
        from initbench.errors import Terminated

        signum, _State.postponed = _State.postponed, None
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        raise Terminated(signum)


def _handle(signum: int, frame: "FrameType | None") -> None:
    if _State.command_runs and _State.trainings and _State.postponed is None and hasattr(signal, "setitimer"):
        _postpone(signum, _SECONDS_FOR_STEP)
        return
    _terminate(signum, frame)


def _terminate(signum: int, frame: "FrameType | None") -> None:
    if _State.command_runs and not _is_in_import(frame):
        from initbench.errors import Terminated

        raise Terminated(signum)
    if _State.runs_to_mark and hasattr(signal, "setitimer"):
        _postpone(signum)
        return
    try:  # noqa: SIM105  # contextlib would have to be imported
        os.write(2, b"initbench: interrupted\n")
    except OSError:
        pass
    os._exit(128 + signum)


def _postpone(signum: int, seconds: float = _SECONDS_BETWEEN_TRIES) -> None:
    _State.postponed = signum
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _retry_signal(_signum: int, frame: "FrameType | None") -> None:
    if _State.postponed is not None:
        signum, _State.postponed = _State.postponed, None
        _terminate(signum, frame)


def _handle_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again where its exception was raised in a destructor or callback, which drops it."""
    signum = getattr(unraisable.exc_value, "signum", None)
    is_signal = type(unraisable.exc_value).__name__ == "Terminated"
    if is_signal and signum is not None and hasattr(signal, "setitimer"):
        _postpone(signum)
    else:
        sys.__unraisablehook__(unraisable)


def _is_in_import(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
