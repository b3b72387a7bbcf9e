"""Switch torch's default dtype and device between the user's settings and float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch

_Defaults = tuple[torch.dtype, torch.device]
_PLAIN: _Defaults = (torch.float32, torch.device("cpu"))
_user_defaults: ContextVar[_Defaults | None] = ContextVar("defaults_of_the_user", default=None)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Use float32 and the CPU as defaults inside the block, so that results ignore the user's settings."""
    if _user_defaults.get() is not None:  # nested: the outermost context has stored the user's settings
        yield
        return
    current = _current_defaults()
    token = _user_defaults.set(current)
    try:
        with _set_defaults(_PLAIN):
            yield
    finally:
        _user_defaults.reset(token)


@contextmanager
def user_defaults() -> Iterator[None]:
    """Restore the user's settings inside `plain_defaults`, for a forward pass, a loss or a factory."""
    defaults = _user_defaults.get()
    if defaults is None:
        yield
        return
    token = _user_defaults.set(None)
    try:
        with _set_defaults(defaults):
            yield
    finally:
        _user_defaults.reset(token)


def _current_defaults() -> _Defaults:
    return torch.get_default_dtype(), torch.get_default_device()


@contextmanager
def _set_defaults(defaults: _Defaults) -> Iterator[None]:
    dtype, device = _current_defaults()
    with ExitStack() as stack:
        if defaults[0] is not dtype:
            torch.set_default_dtype(defaults[0])
            stack.callback(torch.set_default_dtype, dtype)
        if defaults[1] != device:
            stack.enter_context(defaults[1])
        yield
