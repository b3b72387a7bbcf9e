"""Where commands that train do so: the options they share, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from initbench.errors import UsageError

if TYPE_CHECKING:
    from initbench.execute.experiment import Workplace
    from initbench.store.store import Store

DeviceName = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:n.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Processes that train; default: as many as pay."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
Rerun = Annotated[bool, typer.Option("--rerun", help="Train again what is finished.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def workplace_of(
    store: Store, device: str, workers: int | None, data_dir: Path | None, *, offline: bool
) -> Workplace:
    """One for all configs: what its source has looked for in vain is not looked for again."""
    from initbench.data.dataset import Source
    from initbench.data.resolve import data_root
    from initbench.execute.device import resolve_device
    from initbench.execute.experiment import Workplace

    # What a fallback says is never silenced: the numbers are not those that were asked for.
    source = Source(root=data_root(data_dir), offline=offline, notify=lambda m: typer.echo(m, err=True))
    chosen = resolve_device(device)
    if workers is not None and workers > 1 and chosen.type != "cpu":
        raise UsageError(f"--workers {workers} is for the CPU; on {chosen} one process stacks all runs")
    return Workplace(store=store, source=source, device=chosen, workers=workers)
