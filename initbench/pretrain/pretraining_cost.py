"""Cost of pre-training, in updates of the whole net."""

from __future__ import annotations

from initbench.config.schema import ExperimentConfig
from initbench.pretrain.autoencoder import options_of


def equivalent_updates(config: ExperimentConfig) -> int:
    """Estimate the number of training updates that take as long as the pre-training; 0 without it.

    An update of L + 1 equal layers costs 3(L + 1) passes through a layer, one forward and two backward. An
    update of the auto-encoder of layer l costs l − 1 passes below it and 3 · 2 for encoder and decoder.
    """
    options = options_of(config.init.scheme)
    if options is None:
        return 0
    hidden = getattr(config.model, "depth", 2) - 1
    passes = hidden * (hidden - 1) / 2 + 6 * hidden
    batch = options.batch_size or config.train.batch_size
    return round(options.steps * passes / (3 * (hidden + 1)) * batch / config.train.batch_size)
