"""Check the verdicts of `initbench.probe` and `initbench.lint` on nets that they were not tuned on.

Three kinds of nets are judged under one seed: all classification models of torchvision without pretrained
weights, modern nets as their authors start them, and nets with one planted mistake. A verdict is wrong

- on a sound net, if it contains a finding or a warning, or if the net cannot be probed;
- on a planted mistake, if no finding names it;
- on any net, if it says healthy although the loss is far from chance, or if a printed call of `apply_init`
  does not remove the finding that it is suggested for.

    python -m benchmarks.verdicts_on_nets [--quick] [--only WORD] [--most MILLIONS] [--resume FILE] [--write]
"""

from __future__ import annotations

import argparse
import ast
import gc
import json
import math
import re
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision import models

import initbench
from benchmarks.results_page import write_section, written_by
from benchmarks.verdict_nets import Batch, Subject, modern_nets, planted_mistakes
from docs.generators.markdown import NOTHING, code, table

SEED = 0
FAR = 2.0
"""Loss above ln C, in nats, that counts as far from chance, as for lint's `head_scale`."""
MOST_PARAMETERS = 400.0
"""Largest net, in millions of parameters. A probe needs at least 12 bytes per parameter."""
_CALL = re.compile(r"apply_init\(module(?:, )?([^)]*)\)")
_CROSS_ENTROPY = nn.functional.cross_entropy


@dataclass(frozen=True)
class Advice:
    """A printed call of `apply_init`, and whether following it removed the finding."""

    code: str
    call: str
    outcome: str
    """`cured`, or the remaining findings."""


@dataclass
class Verdict:
    """The verdict on one net, and its errors."""

    subject: Subject
    loss: float | None = None
    probe: tuple[str, ...] = ()
    """Codes of the probe's findings, except notes."""
    warnings: tuple[str, ...] = ()
    """Codes of lint's warnings."""
    healthy: bool = False
    named: bool | None = None
    advice: list[Advice] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


# Subjects ------------------------------------------------------------------------------------------------

_SIDES = {"inception_v3": 299, "maxvit_t": 224}
_SMALLER = {"vit_b_16": 64, "vit_b_32": 64, "vit_l_16": 64, "vit_l_32": 64, "vit_h_14": 56}


def torchvision_nets() -> Iterator[Subject]:
    """Yield every classification model of torchvision as its constructor returns it."""
    for name in models.list_models(module=models):
        side = _SIDES.get(name, _SMALLER.get(name, 64))
        options = {"image_size": side} if name in _SMALLER else {}
        yield Subject(
            name=name,
            make=lambda name=name, options=options: models.get_model(name, weights=None, **options),
            batch=lambda side=side: (torch.randn(4, 3, side, side), torch.randint(1000, (4,))),
            chance=math.log(1000),
            millions=models.get_model_weights(name).DEFAULT.meta["num_params"] / 1e6,
        )


# One verdict ---------------------------------------------------------------------------------------------


def judge(subject: Subject, most: float = MOST_PARAMETERS) -> Verdict:
    """Return the verdict on the net, compared with what is known about it.

    Nets of more than `most` million parameters are skipped.
    """
    verdict = Verdict(subject)
    if subject.millions > most:
        verdict.skipped = f"{subject.millions:,.0f} million parameters are more than {most:,.0f}"
        return verdict
    begun = time.perf_counter()
    module, batch = _made(subject)
    given = batch[0] if batch[1] is None else batch
    try:
        verdict.loss = _loss(subject, module, batch)
        probed = initbench.probe(module, given, subject.loss)
        linted = initbench.lint(module, given, subject.loss)
    except Exception as error:
        verdict.wrong.append(f"cannot be probed: {type(error).__name__}: {error}".splitlines()[0])
    else:
        _fill(verdict, probed, linted)
        verdict.advice = list(_followed(subject, probed, linted))
        verdict.wrong += _wrong(verdict)
    verdict.seconds = time.perf_counter() - begun
    return verdict


def _made(subject: Subject) -> tuple[nn.Module, Batch]:
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return subject.make(), subject.batch()


def _loss(subject: Subject, module: nn.Module, batch: Batch) -> float | None:
    """Compute the cross-entropy that training would start from, independently of initbench."""
    if subject.chance is None:
        return None
    x, y = batch
    states = {name: buffer.clone() for name, buffer in module.named_buffers()}
    torch.manual_seed(SEED)
    with torch.no_grad():
        output: Any = module.train()(x)
    for name, buffer in module.named_buffers():
        buffer.copy_(states[name])
    if subject.loss is not None:
        return float(subject.loss(output, y))
    logits: Tensor = output if isinstance(output, Tensor) else output[0]
    if logits.ndim == 3:
        logits = logits.mT
    return float(_CROSS_ENTROPY(logits, y))


def _fill(verdict: Verdict, probed: Any, linted: Any) -> None:
    findings = [f for f in probed.findings if getattr(f, "level", "warning") != "note"]
    warned = [f for f in linted.findings if f.level == "warning"]
    verdict.probe = tuple(f.code for f in findings)
    verdict.warnings = tuple(f.code for f in warned)
    verdict.healthy = bool(probed.healthy)
    verdict.sentences = [f"{f.code}: {f.message}" for f in probed.findings]
    verdict.sentences += [f"{f.code}: {f.message.sentence} {f.fix}" for f in linted.findings]
    if verdict.subject.mistake:
        named = re.compile(verdict.subject.named_by, re.IGNORECASE)
        told = [f"{f.code}: {f.message}" for f in findings]
        told += [f"{f.code}: {', '.join(f.message.layers)}: {f.message.sentence}" for f in warned]
        verdict.named = any(named.search(sentence) for sentence in told)


def _followed(subject: Subject, probed: Any, linted: Any) -> Iterator[Advice]:
    """Carry out every printed call of apply_init, each on a fresh copy of the net."""
    offers = [(f.code, f.message, "probe") for f in probed.findings]
    offers += [(f.code, f.fix, "lint") for f in linted.findings]
    followed: dict[tuple[str, str], list[str] | str] = {}
    for name, words, by in offers:
        for match in _CALL.finditer(words):
            if (match[0], by) not in followed:
                followed[match[0], by] = _left_by(subject, match[0], by)
            left = followed[match[0], by]
            outcome = "cured" if name not in left else f"still {', '.join(left)}"
            yield Advice(name, match[0], left if isinstance(left, str) else outcome)


def _left_by(subject: Subject, call: str, by: str) -> list[str] | str:
    """Return the codes that `probe` or `lint` reports after the call, or why it could not be checked."""
    module, batch = _made(subject)
    given = batch[0] if batch[1] is None else batch
    try:
        positional, named = _arguments(call, batch[0])
        initbench.apply_init(module, *positional, **named)
        look: Callable[..., Any] = initbench.probe if by == "probe" else initbench.lint
        return [finding.code for finding in look(module, given, subject.loss).findings]
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _arguments(call: str, x: Tensor) -> tuple[list[Any], dict[str, Any]]:
    """Parse the arguments after the module in a printed call; a bare name means the batch."""
    parsed = ast.parse(call, mode="eval").body
    assert isinstance(parsed, ast.Call)

    def value(node: ast.expr) -> Any:
        return x if isinstance(node, ast.Name) else ast.literal_eval(node)

    return [value(a) for a in parsed.args[1:]], {str(k.arg): value(k.value) for k in parsed.keywords}


def _wrong(verdict: Verdict) -> Iterator[str]:
    subject = verdict.subject
    if not subject.mistake:
        if verdict.probe:
            yield f"false alarm of probe: {', '.join(verdict.probe)}"
        if verdict.warnings:
            yield f"false warning of lint: {', '.join(verdict.warnings)}"
    elif not verdict.named:
        yield "not named"
    if verdict.healthy and _is_far(verdict):
        yield f"healthy although the loss is {verdict.loss:.3g}, chance being {subject.chance:.3g}"
    for advice in verdict.advice:
        if advice.outcome != "cured":
            yield f"{advice.code}: {advice.call}: {advice.outcome}"


def _is_far(verdict: Verdict) -> bool:
    loss, chance = verdict.loss, verdict.subject.chance
    return loss is not None and chance is not None and not loss - chance <= FAR


# The study -----------------------------------------------------------------------------------------------

KINDS = {
    "torchvision": torchvision_nets,
    "modern": modern_nets,
    "planted": planted_mistakes,
}


def study(
    kinds: Sequence[str],
    only: Sequence[str] = ("",),
    most: float = MOST_PARAMETERS,
    resume: Path | None = None,
) -> dict[str, list[Verdict]]:
    """Return the verdicts by kind, printing each as it comes.

    Each new verdict is appended to the file `resume` as a line of JSON. Nets that have one there are skipped.
    """
    judged: dict[str, list[Verdict]] = {}
    lines = resume.read_text(encoding="utf-8").splitlines() if resume and resume.exists() else []
    stored = {(record["kind"], record["net"]): record["verdict"] for record in map(json.loads, lines)}
    for kind in kinds:
        judged[kind] = []
        for subject in KINDS[kind]():
            if any(word in subject.name for word in only):
                earlier = stored.get((kind, subject.name))
                verdict = judge(subject, most) if earlier is None else _restored(subject, earlier)
                judged[kind].append(verdict)
                if resume is not None and earlier is None and not verdict.skipped:
                    _append(resume, kind, verdict)
                wrong = verdict.skipped or "; ".join(verdict.wrong) or "right"
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                print(f"{verdict.seconds:6.1f} s {peak:4.1f} GB  {subject.name}: {wrong}", flush=True)
                gc.collect()
    return judged


def _append(path: Path, kind: str, verdict: Verdict) -> None:
    """Add a verdict to the file as one line."""
    values = {f.name: getattr(verdict, f.name) for f in fields(verdict) if f.name != "subject"}
    values["advice"] = [asdict(one) for one in verdict.advice]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "net": verdict.subject.name, "verdict": values}) + "\n")


def _restored(subject: Subject, values: dict[str, Any]) -> Verdict:
    """Read a verdict that `_append` wrote."""
    advice = [Advice(**one) for one in values["advice"]]
    codes = {key: tuple(values[key]) for key in ("probe", "warnings")}
    return Verdict(subject, **{**values, **codes, "advice": advice})


_TITLES = {
    "torchvision": "Models of torchvision",
    "modern": "Modern nets with the init of their authors",
    "planted": "Nets with one planted mistake",
}


def report(kind: str, verdicts: Sequence[Verdict]) -> str:
    """Return the section of docs/results.md about one kind of nets."""
    about = (
        f"torchvision {torchvision.__version__.partition('+')[0]}, without pretrained weights, on four images"
        " of noise, 64 × 64 where the model allows it. "
        if kind == "torchvision"
        else ""
    )
    parts = [
        f"## Verdicts of probe and lint: {_TITLES[kind]}",
        written_by(f"verdicts_on_nets --kinds {kind} --write"),
        f"{about}One seed each. A verdict is *right* if all these conditions hold: a sound net gets no"
        f" finding and no warning; a planted mistake is named; a net with a loss more than {FAR:g} above ln C"
        " is not called healthy; and each printed call of `apply_init`, applied to a fresh net, removes the"
        " finding for which it is suggested.",
        _totals({kind: list(verdicts)}),
        _verdicts(verdicts),
    ]
    return "\n\n".join(parts)


def _totals(judged: dict[str, list[Verdict]]) -> str:
    rows = []
    for kind, verdicts in judged.items():
        seen = [v for v in verdicts if not v.skipped]
        advice = [a for v in seen for a in v.advice]
        cured = sum(a.outcome == "cured" for a in advice)
        named = sum(bool(v.named) for v in seen) if kind == "planted" else NOTHING
        right = sum(not v.wrong for v in seen)
        rows.append([kind, len(seen), len(verdicts) - len(seen), right, named, f"{cured} of {len(advice)}"])
    head = ["kind", "nets", "not run", "verdict right", "mistake named", "advice that cures"]
    return table(head, rows)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = [
        [
            v.subject.name,
            NOTHING if v.loss is None else f"{v.loss:.3g}",
            NOTHING if v.subject.chance is None else f"{v.subject.chance:.3g}",
            ", ".join(map(code, v.probe)) or ("healthy" if v.healthy else NOTHING),
            ", ".join(map(code, dict.fromkeys(v.warnings))) or NOTHING,
            f"{sum(a.outcome == 'cured' for a in v.advice)} of {len(v.advice)}" if v.advice else NOTHING,
            v.skipped or ("; ".join(w.replace("|", "\\|") for w in v.wrong) or "right"),
        ]
        for v in verdicts
    ]
    head = ["net", "loss", "chance", "probe", "warnings of lint", "advice that cures", "verdict"]
    return table(head, rows)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without torchvision's models")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--only", nargs="+", default=[""], help="nets whose name holds one of these")
    parser.add_argument("--most", type=float, default=MOST_PARAMETERS, help="millions of parameters of a net")
    parser.add_argument("--resume", type=Path, help="keep verdicts here, and judge only nets without one")
    parser.add_argument("--failures", type=Path, help="write what is said of wrongly judged nets here")
    parser.add_argument("--write", action="store_true", help="write the section of docs/results.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = [kind for kind in options.kinds if not (options.quick and kind == "torchvision")]
    judged = study(kinds, options.only, options.most, options.resume)
    print(_totals(judged))
    if options.failures:
        options.failures.write_text(failures(judged), encoding="utf-8")
    if options.write:
        for kind, verdicts in judged.items():
            write_section(f"verdicts on nets, {kind}", report(kind, verdicts))


def failures(judged: dict[str, list[Verdict]]) -> str:
    """Return every wrongly judged net with all of its messages."""
    lines = []
    for kind, verdicts in judged.items():
        for verdict in verdicts:
            if verdict.wrong:
                lines += [f"### {kind}: {verdict.subject.name}", ""]
                lines += [f"- WRONG: {wrong}" for wrong in verdict.wrong]
                lines += [f"- said: {sentence}" for sentence in verdict.sentences]
                lines += [f"- loss {verdict.loss}, chance {verdict.subject.chance}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
