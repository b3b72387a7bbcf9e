"""Handlers of SIGINT and SIGTERM for every stage of a command.

An exception that is raised during an import leaves modules half loaded, and libraries may swallow it: torch
imports NumPy inside a `try` block. During an import a signal therefore ends the process immediately, or, if
stored runs have to be marked first, as soon as the import is done. At any other time the handler raises
`errors.Terminated`.

This file is loaded before all others and imports only modules that the interpreter has already loaded.
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
    """State that the handlers share."""

    command_runs: bool = False
    """Whether `errors.Terminated` may be raised: the command line is ready to catch it."""
    runs_to_mark: int = 0
    """Number of open `RunsToMark` contexts; the process must not exit while stored runs are unmarked."""
    postponed: "int | None" = None
    """Signal that waits for the end of an import or of a training step."""
    trainings: int = 0
    """Number of trainings that stop at their next step, after a checkpoint, when a signal arrives."""


def install_signal_handlers() -> None:
    """Install the handlers of SIGINT and SIGTERM."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _handle)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _retry_signal)
    sys.unraisablehook = _handle_unraisable


def install_worker_handler() -> None:
    """Install the handler of SIGTERM in a worker process, with which its parent tells it to stop.

    A training stops at its next step, after a checkpoint; without a training, the process ends at once.
    SIGINT, which a terminal sends to all processes of a command, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_worker)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def stop_trainings(signum: int = signal.SIGTERM) -> bool:
    """Stop the trainings of this process at their next step; return whether there are any."""
    if _State.trainings:
        _State.postponed = signum
    return bool(_State.trainings)


def begin_command() -> None:
    """Raise `errors.Terminated` on signals from now on."""
    _State.command_runs = True


class RunsToMark:
    """Context manager in which stored runs must be marked before the process may exit."""

    def __enter__(self) -> None:
        """Enter the context."""
        _State.runs_to_mark += 1

    def __exit__(self, *_: object) -> None:
        """Leave the context."""
        _State.runs_to_mark -= 1


class EndsAtStep:
    """Context manager in which a signal waits for the next training step, for a few seconds at most.

    A second signal takes effect immediately.
    """

    def __enter__(self) -> None:
        """Enter the context."""
        _State.trainings += 1

    def __exit__(self, kind: "type[BaseException] | None", *_: object) -> None:
        """Leave the context; raise `errors.Terminated` if a signal arrived."""
        _State.trainings -= 1
        if kind is None:
            raise_waiting_signal()


def is_signal_waiting() -> bool:
    """Return whether the training should stop at this step."""
    return bool(_State.trainings) and _State.postponed is not None


def raise_waiting_signal() -> None:
    """Raise `errors.Terminated` if a signal is waiting."""
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


def _stop_worker(signum: int, _frame: "FrameType | None") -> None:
    if not stop_trainings(signum):
        os._exit(128 + signum)


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
    """Send a signal again if its exception was raised in a destructor or callback, where Python drops it."""
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
