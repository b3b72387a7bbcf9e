"""Train two seeds of relu_kaiming in two workers, and print the seconds until both have made an update.

The time starts when the driver has prepared the data and checked the experiment. As in the commands, the
server that forks the workers starts before torch is imported.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initbench.runner.workers.fork_server import start_fork_server

if TYPE_CHECKING:
    from initbench.runner.recorder import Cohort
    from initbench.train.events import RunEvent

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "relu_kaiming.yaml"
SEEDS, STEPS = 2, 300


class Clock:
    """Keeps the time of the plan and of the first update of each cohort."""

    def __init__(self) -> None:
        self.planned_at = 0.0
        self.first_updates: dict[tuple[int, ...], float] = {}

    def planned(self, _config: Any, to_train: int, stored: int, steps: int | None) -> None:
        """Keep the time."""
        del to_train, stored, steps
        self.planned_at = time.monotonic()

    def receive(self, cohort: Cohort, event: RunEvent) -> None:
        """Keep the time of the first update of a cohort."""
        from initbench.train.events import Advanced

        if isinstance(event, Advanced):
            self.first_updates.setdefault(tuple(seed for _, seed in cohort), time.monotonic())


def main() -> None:
    """Train and print one JSON object."""
    start_fork_server()
    import torch

    from benchmarks.bare_loop import source
    from initbench.config.loading import load_config
    from initbench.config.schema import ExperimentConfig
    from initbench.runner.plan import RunContext
    from initbench.runner.runner import Runner
    from initbench.store.store import Store

    changes = [f"train.steps={STEPS}", f"seeds={SEEDS}", "data.fallback=null"]
    config = load_config(CONFIG, changes, ExperimentConfig)
    context = RunContext(
        store=Store(Path(sys.argv[1])),
        source=source(),
        device=torch.device("cpu"),
        workers=SEEDS,
    )
    clock = Clock()
    with Runner(context, clock) as runner:
        runner.run([config])
    if len(clock.first_updates) != SEEDS:
        raise RuntimeError(f"{len(clock.first_updates)} cohorts trained instead of {SEEDS}")
    print(json.dumps({"seconds": max(clock.first_updates.values()) - clock.planned_at}))


if __name__ == "__main__":
    main()
