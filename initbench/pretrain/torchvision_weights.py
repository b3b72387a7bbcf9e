"""Published weights of torchvision's nets, under the names of the nets of initbench."""

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
    """Return tensors of torchvision's weights, such as ResNet18_Weights.IMAGENET1K_V1, by this net's names.

    The file is searched in torch's hub folder and downloaded there, unless `source.offline` is set. The net
    must have passed `models.transfer_checks.check_transfer`.

    Raises:
        DataError: If the file is missing and cannot be downloaded, or is not what was published.
    """
    from torchvision.models import get_weight

    weights = get_weight(name)
    path = _file(name, weights.url, source)
    return adapted(read(path), model, type(weights).__name__)


def adapted(tensors: dict[str, Tensor], model: FamilyOptions, weights: str) -> dict[str, Tensor]:
    """Return torchvision's state_dict under this net's names; `weights`: name of its class of weights.

    In torchvision's vgg a convolution before batch norm has a bias, in this net it has none. The bias is
    subtracted from the running mean instead.
    """
    from initbench.models.torchvision_adapter import given_net, names_in_rebuilt_net

    adapted_tensors = dict(tensors)
    if model.norm.name != "none":
        _fold_biases(adapted_tensors)
    names = names_in_rebuilt_net(model, str(getattr(model, "model", "")), given_net(weights))
    split = {key: key.rpartition(".") for key in adapted_tensors}
    return {
        f"{names.get(owner, owner)}.{last}": adapted_tensors[key] for key, (owner, _, last) in split.items()
    }


def _fold_biases(tensors: dict[str, Tensor]) -> None:
    """Subtract each convolution's bias from the running mean of the batch norm that follows it."""
    owners = list(dict.fromkeys(key.rpartition(".")[0] for key in tensors))
    for conv, norm in pairwise(owners):
        mean, bias = f"{norm}.running_mean", f"{conv}.bias"
        if mean in tensors and bias in tensors and tensors[f"{conv}.weight"].dim() == 4:
            tensors[mean] = tensors[mean] - tensors.pop(bias)


def _file(name: str, url: str, source: DataSource) -> Path:
    """Return the file of weights; its name ends with the first digits of its hash."""
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
        raise DataError(
            f"{path} is not the file that was published as {name}: delete it, and it is fetched again"
        )
    return path
