"""A function of one run's tensors, for all the runs of a cohort at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import vmap

from initbench.models.network import Mode


def each(mode: Mode, function: Callable[..., Any], data_dims: tuple[int | None, ...]) -> Callable[..., Any]:
    """`function` of one run's (parameters, buffers, *data), for all runs, on an axis K in front.

    `data_dims`: for each of the data, 0 where every run has its own, None where all share one. In mode
    `single` there is one run, and the function is called as it is.
    """
    if mode == "vmap":
        return vmap(function, in_dims=(0, 0, *data_dims), randomness="different")

    def single(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Any:
        own = {name: p[0] for name, p in parameters.items()}, {name: b[0] for name, b in buffers.items()}
        batch = (x if dim is None else x[0] for x, dim in zip(data, data_dims, strict=True))
        result = function(*own, *batch)
        return result[None] if isinstance(result, Tensor) else tuple(part[None] for part in result)

    return single
