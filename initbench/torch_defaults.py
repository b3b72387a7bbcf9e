"""torch's default dtype and device: the user's while the user's code runs, float32 on the CPU around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch

_Defaults = tuple[torch.dtype, torch.device]
_PLAIN: _Defaults = (torch.float32, torch.device("cpu"))
_of_the_user: ContextVar[_Defaults | None] = ContextVar("defaults_of_the_user", default=None)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Make float32 and the CPU the defaults inside, so that numbers do not depend on what the user set."""
    if _of_the_user.get() is not None:  # nested: the outermost knows what the user had
        yield
        return
    current = _current()
    token = _of_the_user.set(current)
    try:
        with _as_defaults(_PLAIN):
            yield
    finally:
        _of_the_user.reset(token)


@contextmanager
def user_defaults() -> Iterator[None]:
    """Restore, inside `plain_defaults`, what the user had set: for a forward pass, a loss, a factory."""
    wanted = _of_the_user.get()
    if wanted is None:
        yield
        return
    token = _of_the_user.set(None)
    try:
        with _as_defaults(wanted):
            yield
    finally:
        _of_the_user.reset(token)


def _current() -> _Defaults:
    return torch.get_default_dtype(), torch.get_default_device()


@contextmanager
def _as_defaults(wanted: _Defaults) -> Iterator[None]:
    dtype, device = _current()
    with ExitStack() as stack:
        if wanted[0] is not dtype:
            torch.set_default_dtype(wanted[0])
            stack.callback(torch.set_default_dtype, dtype)
        if wanted[1] != device:
            stack.enter_context(wanted[1])
        yield
