"""Shards of a sweep, one for each of several machines that do not communicate."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from initbench.config.schema import ExperimentConfig
from initbench.config.study import Sweep, Variant
from initbench.errors import UsageError
from initbench.runner.batching import program_key

Cost = Callable[[ExperimentConfig], float]
"""Function that returns the cost of one run of an experiment, the same on every machine."""


@dataclass(frozen=True)
class Shard:
    """Index of a shard and the number of shards."""

    index: int
    """Number of the shard, counted from 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse text such as `2/8`; raises UsageError for any other form."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard takes a part of how many, as in --shard 2/8, not {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class _Piece:
    """A point with one seed, or a tuned point with all its seeds."""

    point: Variant
    cost: float
    program: str

    @property
    def key(self) -> tuple[float, str, str, tuple[int, ...]]:
        """Sort key: costly pieces first, pieces of the same program next to each other."""
        return -self.cost, self.program, self.point.label, self.point.config.seed_list


def select_shard(sweep: Sweep, shard: Shard, cost: Cost) -> Sweep:
    """Return the points of `shard`, with their seeds that belong to it."""
    return split_into_shards(sweep, shard.count, cost)[shard.index - 1]


def split_into_shards(sweep: Sweep, count: int, cost: Cost) -> list[Sweep]:
    """Return the shards of a sweep, each with its points and their seeds.

    All runs are sorted by falling cost; runs that can train as one cohort are adjacent. The sequence is cut
    into shares of equal cost, and a run belongs to the share that contains its middle. The costs of two
    shards thus differ by at most the cost of one run. A tuned point is never divided, because its value is
    chosen from all of its runs.
    """
    pieces = sorted(
        (piece for point in sweep.variants for piece in _pieces(point, cost)), key=lambda p: p.key
    )
    total = sum(piece.cost for piece in pieces)
    selected: list[dict[str, list[Variant]]] = [{} for _ in range(count)]
    cost_before = 0.0
    for piece in pieces:
        middle = (cost_before + piece.cost / 2.0) / total if total else 0.0
        cost_before += piece.cost
        shard = selected[min(int(middle * count), count - 1)]
        shard.setdefault(piece.point.label, []).append(piece.point)
    return [
        sweep.part(
            tuple(
                _merge_pieces(shard[point.label], point) for point in sweep.variants if point.label in shard
            )
        )
        for shard in selected
    ]


def max_shards(sweep: Sweep) -> int:
    """Return the number of parts that are never divided: runs, and tuned points with all their runs."""
    return sum(1 if point.candidates else len(point.config.seed_list) for point in sweep.variants)


def _pieces(point: Variant, cost: Cost) -> list[_Piece]:
    program = program_key(point.config)
    if point.candidates:
        total = sum(cost(config) * len(config.seed_list) for config in point.configs())
        return [_Piece(point, total, program)]
    run_cost = cost(point.config)
    seeds = point.config.seed_list
    return [_Piece(replace(point, config=point.config.with_seeds(seed)), run_cost, program) for seed in seeds]


def _merge_pieces(pieces: Sequence[Variant], point: Variant) -> Variant:
    if point.candidates:
        return point
    seeds = {seed for piece in pieces for seed in piece.config.seed_list}
    selected = [seed for seed in point.config.seed_list if seed in seeds]
    return replace(point, config=point.config.with_seeds(*selected))
