"""Check that a net can be built for a data set and fits into memory."""

from __future__ import annotations

from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.errors import ConfigError, ConfigIssue
from initbench.machine import require_memory
from initbench.models.build import check


def check_targets(config: ExperimentConfig, data: PreparedData) -> None:
    """Raise ConfigError unless the loss and the net fit the inputs and targets of the data."""
    issues = [ConfigIssue("", key, problem) for key, problem in config.target_issues(data.form)]
    if issues:
        raise ConfigError(issues)


def check_network(config: ExperimentConfig, data: PreparedData, *, copies: int) -> None:
    """Check that net and loss fit the data and that memory suffices for `copies` of its parameters.

    Raises:
        ConfigError: If no such net can be built on such samples, or the loss does not fit their targets.
        AllocationError: If there is not enough memory.
    """
    check_targets(config, data)
    parameters = check(config.model, config.init, input_shape=data.input_shape, classes=data.form.outputs)
    if data.train.x.device.type == "cpu":
        remedy = "choose a smaller model.width or model.depth"
        require_memory(copies * parameters, f"the net of {config.name}", remedy)
