"""Rules about the head of a net before training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initbench.linting.rule import LINT_RULES, LintMessage, LintRule, LintTarget, join_names
from initbench.probing.initial_conditions import EXCESS, head_sentence


def _head_scale(target: LintTarget) -> Iterator[LintMessage]:
    conditions = target.nets[0].conditions
    first_input = conditions.first_input
    excess = math.fsum(net.conditions.excess for net in target.nets) / len(target.nets)
    if excess <= EXCESS or (first_input is not None and not first_input.is_scaled):
        return  # an input that was not scaled explains the loss
    sentence = head_sentence(conditions)
    yield LintMessage(
        sentence[0].upper() + sentence[1:],
        "Check the scale of the head's input and of its weights.",
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
        verb, whole = ("starts", "the head changes") if len(closed) == 1 else ("start", "these heads change")
        yield LintMessage(
            f"{join_names(closed)} {verb} at 0, so no gradient reaches the layers below at the first update.",
            f"No change needed: {whole} at the first update. Gradients measured before it are not"
            " informative.",
            tuple(closed),
        )


LINT_RULES.add(
    LintRule(
        name="head_scale",
        summary=f"The initial loss is more than {EXCESS:g} nats above chance, which is ln C for C classes.",
        source="the entropy of equal logits",
        level="warning",
        limit=f"> {EXCESS:g} nats, mean over the seeds",
        cure="Initialise the head to 0 (init.head=zeros) or with smaller weights.",
        look=_head_scale,
    )
)
LINT_RULES.add(
    LintRule(
        name="zero_head",
        summary="A head starts at 0 and passes no gradient at first.",
        source="Zhang et al. 2019",
        level="note",
        limit="all weights of a head exactly 0, and E[δ²] = 0 in the layers before it",
        cure="No change needed: the head changes at the first update.",
        look=_zero_head,
    )
)
