"""Check that a net can be built for a data set and fits into memory."""

from __future__ import annotations

import torch

from initbench.components.loss import LOSSES
from initbench.config.schema import ExperimentConfig
from initbench.data.preprocessing import PreparedData
from initbench.errors import ConfigError, ConfigIssue, UsageError, reporting_user_code
from initbench.machine import require_memory
from initbench.models.build import check
from initbench.models.network import FAMILIES


def check_targets(config: ExperimentConfig, data: PreparedData) -> None:
    """Check that the loss and the net fit the inputs and targets of the data.

    A loss of the user is called once, on outputs that are 0.

    Raises:
        ConfigError: If the loss is not for such targets, or the net not for such samples.
        UsageError: If a loss of the user raises an exception or returns no loss.
    """
    issues = [ConfigIssue("", key, problem) for key, problem in config.target_issues(data.form)]
    if issues:
        raise ConfigError(issues)
    loss, form = LOSSES[config.train.loss.name], data.form
    if loss.per_sample is None and not FAMILIES[config.model.family].takes_positions:
        outputs, y = torch.zeros(2, form.outputs, device=data.train.y.device), data.train.y[:2]
        with reporting_user_code(f"train.loss={loss.name} fails for outputs (2, {form.outputs}):"):
            value = loss.mean(outputs.requires_grad_(), y, config.train.loss)
        if not value.requires_grad:
            raise UsageError(f"train.loss={loss.name} returns a number without a gradient")


def check_network(config: ExperimentConfig, data: PreparedData, *, copies: int) -> None:
    """Check that net and loss fit the data and that memory suffices for `copies` of its parameters.

    Raises:
        ConfigError: If no such net can be built on such samples, or the loss does not fit their targets.
        AllocationError: If there is not enough memory.
    """
    check_targets(config, data)
    parameters = check(config.model, config.init, form=data.form)
    if data.train.x.device.type == "cpu":
        remedy = "choose a smaller model.width or model.depth"
        require_memory(copies * parameters, f"the net of {config.name}", remedy)
