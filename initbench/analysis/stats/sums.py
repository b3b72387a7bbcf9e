"""The sum of the means of independent arms, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initbench.analysis.stats.confidence_intervals import Interval, t_interval
from initbench.analysis.stats.mean_difference import mean_and_std
from initbench.analysis.stats.summary import Summary


def sum_of_means(parts: Sequence[Summary], confidence: float) -> tuple[float, Interval | None]:
    """Return the sum of the means of independent samples, with its t interval.

    Σ m_i ± t(ν) · √Σ v_i, with v_i = s_i²/n_i and ν = (Σ v_i)² / Σ [v_i² / (n_i − 1)]. For two samples this
    is Welch's interval. The interval is None if it is not finite.
    Source: Satterthwaite 1946, An approximate distribution of estimates of variance components.

    Args:
        parts: One summary per sample, each of at least two finite values.
        confidence: Between 0 and 1, e.g. 0.95.
    """
    moments = [(*mean_and_std(part), part.n) for part in parts]
    total = math.fsum(mean for mean, _, _ in moments)
    errors = [std / math.sqrt(n) for _, std, n in moments]
    error, df = math.hypot(*errors), float(sum(n - 1 for _, _, n in moments))
    if error:
        shares = [(part_error / error) ** 2 for part_error in errors]
        df = 1.0 / math.fsum(share**2 / (n - 1) for share, (_, _, n) in zip(shares, moments, strict=True))
    return total, t_interval(total, error, df, confidence, "linear")
