"""What the last layer makes of the net before training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.probing.training_conditions import EXCESS, head_sentence


def _head_scale(target: LintTarget) -> Iterator[LintMessage]:
    conditions = target.nets[0].conditions
    first_input = conditions.first_input
    excess = math.fsum(net.conditions.excess for net in target.nets) / len(target.nets)
    if excess <= EXCESS or (first_input is not None and not first_input.is_scaled):
        return  # what follows from an input that was not scaled is no fault of the head
    sentence = head_sentence(conditions)
    yield LintMessage(
        sentence[0].upper() + sentence[1:],
        "Look at what the head is given, and at what scales its weights.",
        (conditions.head,),
        target.ways.get("head_scale", ()),
    )


def _zero_head(target: LintTarget) -> Iterator[LintMessage]:
    records = target.nets[0].records
    closed = [
        head.name
        for head in target.heads
        if head.below
        and float(head.weight.detach().abs().max()) == 0.0
        and all(records[use.index - 1]["grad"]["pre_q"] == 0.0 for use in head.below)
    ]
    if closed:
        verb, whole = ("starts", "the head moves") if len(closed) == 1 else ("start", "these heads move")
        yield LintMessage(
            f"{join_names(closed)} {verb} at 0, so that no gradient reaches the layers below at the first update.",
            f"Nothing has to be done: {whole} at once. Gradients measured before that say nothing.",
            tuple(closed),
        )


LINT_RULES.add(
    LintRule(
        name="head_scale",
        summary=f"The loss starts more than {EXCESS:g} nats above chance, which is ln C for C classes.",
        source="the entropy of equal logits",
        level="warning",
        limit=f"> {EXCESS:g} nats, mean over the seeds",
        cure="Start the head at 0 (init.head=zeros), or draw it with smaller weights.",
        look=_head_scale,
    )
)
LINT_RULES.add(
    LintRule(
        name="zero_head",
        summary="A head starts at 0 and lets no gradient through at first.",
        source="Zhang et al. 2019",
        level="note",
        limit="all weights of a head exactly 0, and E[δ²] = 0 in the layers that lead to it",
        cure="Nothing has to be done: the head moves at the first update.",
        look=_zero_head,
    )
)
