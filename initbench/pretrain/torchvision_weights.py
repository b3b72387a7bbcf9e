"""Published weights of torchvision's nets, in the names of the nets as they are rebuilt here."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor

from initbench.components.inits.pretrained_scheme import TORCHVISION
from initbench.data.dataset import DataSource
from initbench.errors import DataError
from initbench.models.network import FamilyOptions
from initbench.pretrain.weight_files import read


def published(name: str, model: FamilyOptions, source: DataSource) -> dict[str, Tensor]:
    """The tensors of torchvision's weights such as ResNet18_Weights.IMAGENET1K_V1, by this net's names.

    They are looked for in torch's hub folder, and fetched there unless `source.offline`. The net is one that
    `models.pretrained.check_transfer` lets pass.
    Raises DataError when they are neither there nor to be had, or are not what was published.
    """
    from torchvision.models import get_weight

    weights = get_weight(name)
    path = _file(name, weights.url, source)
    return adapted(read(path), model, type(weights).__name__)


def adapted(tensors: dict[str, Tensor], model: FamilyOptions, weights: str) -> dict[str, Tensor]:
    """torchvision's state_dict under this net's names; `weights` is the class of weights that it is one of.

    A convolution before batch norm has a bias in vgg, and none here. What it adds is in the running mean,
    from which it is taken away.
    """
    from initbench.models.torchvision_adapter import given_net, renamed

    adapted_tensors = dict(tensors)
    if model.norm.name != "none":
        _fold_biases(adapted_tensors)
    names = renamed(model, str(getattr(model, "model", "")), given_net(weights))
    split = {key: key.rpartition(".") for key in adapted_tensors}
    return {
        f"{names.get(owner, owner)}.{last}": adapted_tensors[key] for key, (owner, _, last) in split.items()
    }


def _fold_biases(tensors: dict[str, Tensor]) -> None:
    """Subtract each convolution's bias from the running mean of the batch norm right behind it."""
    owners = list(dict.fromkeys(key.rpartition(".")[0] for key in tensors))
    for conv, norm in pairwise(owners):
        mean, bias = f"{norm}.running_mean", f"{conv}.bias"
        if mean in tensors and bias in tensors and tensors[f"{conv}.weight"].dim() == 4:
            tensors[mean] = tensors[mean] - tensors.pop(bias)


def _file(name: str, url: str, source: DataSource) -> Path:
    """The file of weights, whose name ends in the beginning of its hash."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    begins = path.stem.rpartition("-")[2]
    if not path.is_file():
        if source.offline:
            raise DataError(
                f"{TORCHVISION}{name} is not on disk and is not fetched offline: leave out --offline, or put"
                f" {path.name} into {path.parent}"
            )
        source.notify(f"fetching {name} to {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=begins, progress=False)
        except (OSError, URLError, RuntimeError) as error:
            raise DataError(
                f"{TORCHVISION}{name} could not be fetched ({error}): put {path.name} into {path.parent}"
            ) from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(begins):
        raise DataError(f"{path} is not the file that was published as {name}: delete it, it is fetched anew")
    return path
