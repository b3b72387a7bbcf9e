"""What the last layer makes of the net before training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initbench.linting.check import CHECKS, Check, Remark, Subject

_EXCESS = 2.0
"""Nats above ln C from which a net starts out sure of what it cannot know."""


def _head_scale(subject: Subject) -> Iterator[Remark]:
    losses = [net.loss.value for net in subject.nets]
    chance, loss = subject.nets[0].loss.chance, math.fsum(losses) / len(losses)
    if chance is None or not _EXCESS < loss - chance < math.inf:
        return
    head = subject.uses[-1].name
    logits = math.fsum(net.records[-1]["pre"]["q"] for net in subject.nets) / len(subject.nets)
    yield Remark(
        f"The loss starts at {loss:.3g}, not near ln C = {chance:.3g}: the logits have E[h²] = {logits:.3g},"
        " and the first updates only undo that.",
        subject.either("init.head=zeros", f"Start {head} at 0, or with weights a few times smaller."),
        (head,),
    )


def _zero_head(subject: Subject) -> Iterator[Remark]:
    head = subject.uses[-1]
    below = [record["grad"]["pre_q"] for record in subject.nets[0].records[:-1]]
    if below and float(head.weight.detach().abs().max()) == 0.0 and not any(below):
        yield Remark(
            f"{head.name} starts at 0, so that no gradient reaches the layers below at the first update.",
            "Nothing has to be done: the head moves at once. Gradients measured before that say nothing.",
            (head.name,),
        )


CHECKS.add(
    Check(
        name="head_scale",
        summary=f"The loss starts more than {_EXCESS:g} above ln C.",
        source="the entropy of equal logits",
        level="warning",
        look=_head_scale,
    )
)
CHECKS.add(
    Check(
        name="zero_head",
        summary="The head starts at 0 and lets no gradient through at first.",
        source="Zhang et al. 2019",
        level="note",
        look=_zero_head,
    )
)
