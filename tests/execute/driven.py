"""One experiment through the driver, as the commands do it."""

from __future__ import annotations

from typing import Any

from initbench.config.schema import ExperimentConfig
from initbench.execute.drive import Driver
from initbench.execute.experiment import Execution, Workplace
from initbench.execute.undertaking import Budget


def run_experiment(
    config: ExperimentConfig, workplace: Workplace, observer: Any, *, rerun: bool
) -> Execution:
    """Train what is missing of one experiment; the workers end with it."""
    with Driver(workplace, observer, Budget(rerun=rerun)) as driver:
        (execution,) = driver.drive([config])
    return execution
