"""The sum of the means of independent arms, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initbench.analysis.stats.confidence_intervals import Interval, t_interval
from initbench.analysis.stats.mean_difference import mean_and_std
from initbench.analysis.stats.summary import Summary


def sum_of_means(parts: Sequence[Summary], confidence: float) -> tuple[float, Interval | None]:
    """Σ m_i with its t interval: Σ m_i ± t(ν) · √Σ v_i, v_i = s_i²/n_i, ν = (Σ v_i)² / Σ [v_i² / (n_i − 1)].

    Each part has two finite values or more. Two parts are Welch's case.
    Source: Satterthwaite 1946, An approximate distribution of estimates of variance components.
    """
    moments = [(*mean_and_std(part), part.n) for part in parts]
    total = math.fsum(mean for mean, _, _ in moments)
    errors = [std / math.sqrt(n) for _, std, n in moments]
    error, df = math.hypot(*errors), float(sum(n - 1 for _, _, n in moments))
    if error:
        shares = [(part_error / error) ** 2 for part_error in errors]
        df = 1.0 / math.fsum(share**2 / (n - 1) for share, (_, _, n) in zip(shares, moments, strict=True))
    return total, t_interval(total, error, df, confidence, "linear")
