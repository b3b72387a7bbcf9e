"""docs/lessons.md: every shipped lesson with its verdicts, from stored runs."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console

from docs.generators import pictures
from docs.generators.markdown import code, page, table
from initbench.config.study import Lesson
from initbench.render.compare.display_options import View
from initbench.render.lesson_tables import claim_evidence, render_results
from initbench.render.terminal import print_uncut
from initbench.render.text import plural
from initbench.study.run_study import LessonResult
from initbench.study.verdicts import ClaimResult, ClaimVerdict

PAGE = "docs/lessons.md"
PICTURES = {
    "symmetry": ["validation-accuracy", "symmetry.*"],
    "small_and_large": ["depth-activation-std", "small_and_large.*"],
    "xavier_keeps": ["depth-activation-std", "xavier_keeps.*"],
    "one_fan_or_two": ["depth-gradient", "one_fan_or_two.*"],
    "misprint": ["depth-q", "misprint.*"],
}
"""Arguments of `initbench figure` for the picture of a lesson, by the lesson's name."""
WIDTH = 120
"""Columns of tables and pictures."""
_HEADER = """\
<!-- Written by `python -m docs.lessons` from stored runs and configs/lessons; do not edit. -->"""
_INTRO = """\
Each lesson is a file in [configs/lessons](../configs/lessons). It has a question, the experiments that answer
it, and claims, each with a condition that was written before the first run. A claim is **supported** if
the whole 95 % interval of its numbers fulfils the condition, **contradicted** if the whole interval
fulfils the opposite, and otherwise **undecided**, for example if the best value of a tuned arm is at the edge
of its grid ([config.md](config.md#verdicts) lists the reasons). [ci.md](ci.md) describes the language of the
conditions, and [config.md](config.md#lessons) the format of the files. A contradicted claim is as good a
result as a supported one: several sources are wrong, or are right about a different question.

A verdict holds for the budget and the grid of its lesson. `whitening` and `xavier_under_relu` were repeated
with wider grids, because the best values of some arms were at the edge of the first grids.
`xavier_under_relu` and `which_norm` were repeated with more updates. The conditions were not changed; the
claims now give the number of updates.

```sh
initbench lesson ls
initbench lesson xavier_under_relu
```

<!-- not run: trains every lesson -->
```sh
initbench lesson --all --first-seed 100
```"""
_MARK = re.compile(r"^<!-- lesson: (\S+), config (\S+) -->$", re.MULTILINE)

_HEADING = re.compile(r"^## \d+\. ", re.MULTILINE)
_MACHINES = re.compile(r" Machine: (.*)\.$", re.MULTILINE)
_VERDICT = re.compile(rf"^\| ({'|'.join(ClaimVerdict)}) \| ", re.MULTILINE)
_CLAIM = re.compile(rf"^\| (?:{'|'.join(ClaimVerdict)}) \| (.*?) \| \d+ \| ", re.MULTILINE)


def render(found: Sequence[LessonResult], current: str = "", order: Sequence[str] = ()) -> str:
    """Render the whole page.

    Args:
        found: The lessons whose sections are written.
        current: A page whose other sections are kept.
        order: The names of all lessons; those of `found` where it is empty.
    """
    texts = {**_sections(current), **{one.study.name: "\n\n".join(_lesson(one)) for one in found}}
    names = [name for name in order or texts if name in texts]
    numbered = [_HEADING.sub(f"## {i}. ", texts[name], count=1) for i, name in enumerate(names, 1)]
    counts = [Counter(_VERDICT.findall(text)) for text in numbered]
    summary = [_summary(i, *pair) for i, pair in enumerate(zip(names, numbered, counts, strict=True), 1)]
    header = ("", "lesson", "question", "claims", *map(str, ClaimVerdict))
    total = sum(counts, Counter())
    verdicts = ", ".join(f"{total[verdict]} {verdict}" for verdict in ClaimVerdict)
    line = f"{plural(total.total(), 'claim')}: {verdicts}. {_machines(found, current)}"
    return page("# Lessons", _HEADER, _INTRO, table(header, summary), line, *numbered)


def _sections(text: str) -> dict[str, str]:
    """Return the sections of a page by the names of their lessons."""
    starts = [match.start() for match in _HEADING.finditer(text)]
    parts = [text[start:end].strip() for start, end in pairwise([*starts, len(text)])]
    return {mark[1]: part for part in parts if (mark := _MARK.search(part))}


def stale(current: str, lessons: Sequence[Lesson]) -> list[str]:
    """Return differences between the page and the files in configs and claims; numbers are not compared."""
    digests = {mark[1]: mark[2] for mark in _MARK.finditer(current)}
    sections = _sections(current)
    found = [
        f"{name}: is no lesson any more" for name in digests if name not in {one.name for one in lessons}
    ]
    for lesson in lessons:
        if digests.get(lesson.name) != lesson.config.digest:
            found.append(f"{lesson.name}: its runs are of config {digests.get(lesson.name)}")
        stated = _CLAIM.findall(sections.get(lesson.name, ""))
        if stated != [_said(claim) for claim in lesson.config.claims]:
            found.append(f"{lesson.name}: its claims are others")
    return found


def _said(claim: Any) -> str:
    """Return a claim and its condition as a cell of the table."""
    source = f" ({claim.source})" if claim.source else ""
    words = " ".join(f"{claim.says}{source}: {code(claim.holds_if)}".split())
    return words.replace("|", r"\|")


def _summary(number: int, name: str, section: str, counts: Counter[str]) -> list[str]:
    question = section.partition("\n")[0].partition(". ")[2]
    each = (str(counts[verdict]) for verdict in ClaimVerdict)
    return [str(number), code(name), question, str(counts.total()), *each]


def _lesson(found: LessonResult) -> Iterator[str]:
    config = found.study.config
    yield f"## 0. {config.question}"
    yield f"<!-- lesson: {config.name}, config {config.digest} -->"
    yield f"{code(f'initbench lesson {config.name}')}. {config.source}".strip()
    yield config.notes.strip()
    runs = [run for arm in found.variants for run in found.runs(arm)]
    seconds = sum(run.seconds or 0.0 for run in runs)
    tuned = [arm.tuning for arm in found.variants if arm.tuning is not None]
    cost = f"{plural(len(runs), 'run')} on {found.table.dataset}, {seconds:.0f} s of training"
    if tuned:
        more, longer = sum(one.runs for one in tuned), sum(one.seconds for one in tuned)
        cost += f"; {plural(more, 'run')} and {longer:.0f} s of tuning before"
    yield f"{cost}. Config {code(config.digest)}."
    yield _text(found)
    if config.name in PICTURES:
        yield pictures.block(PAGE, picture_name(config.name), PICTURES[config.name])
    rows = [(one.verdict, _said(one.claim), one.n, _evidence(one)) for one in found.claims]
    yield table(("verdict", "claim", "n", "numbers"), rows).replace(r"\\|", r"\|")


def picture_name(lesson: str) -> str:
    """Return the name of the picture of a lesson."""
    return f"lesson_{lesson}"


def _evidence(found: ClaimResult) -> str:
    return "; ".join(claim_evidence(found))


def _text(found: LessonResult) -> str:
    console = Console(
        file=io.StringIO(), width=WIDTH, markup=False, emoji=False, highlight=False, color_system=None
    )
    for piece in render_results(found, WIDTH, View(width=WIDTH)):
        print_uncut(console, piece)
    assert isinstance(console.file, io.StringIO)
    return f"```text\n{console.file.getvalue().strip()}\n```"


def _machines(found: Sequence[LessonResult], current: str) -> str:
    records = [run.record for one in found for arm in one.variants for run in one.read_runs(arm)]
    before = _MACHINES.search(current)
    seen = {_machine(record["machine"], record["versions"]) for record in records}
    seen |= set(before[1].split("; ")) if before else set()
    return f"Machine: {'; '.join(sorted(seen))}."


def _machine(machine: dict[str, Any], versions: dict[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, torch {versions['torch']}"
