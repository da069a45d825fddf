"""Pretrained weights: torchvision's own download, or a local file whose sha256 is checked; never a foreign pickle."""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from glomerulearn.errors import InputError

log = logging.getLogger(__name__)


def load_encoder_weights(model: nn.Module, name: str, weights: str, sha256: str | None = None) -> None:
    """Fill torchvision model `name` with `weights`: `none`/`random` (left as initialised), `torchvision`, or a path.

    Raises: InputError when the weights cannot be had, do not fit, or are not the file that sha256 names.
    """
    if weights in ("none", "random"):
        return
    state = _from_torchvision(name) if weights == "torchvision" else read_state_dict(weights, sha256)
    try:
        missing, _ = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"weights {weights!r} do not fit {name}: {error}") from error
    # a file without the classifier is as good: only the features are used
    lost = [key for key in missing if not key.startswith(("fc.", "classifier.")) and "num_batches" not in key]
    if lost:
        raise InputError(f"weights {weights!r} lack {len(lost)} tensors of {name}, e.g. {lost[0]!r}; wrong model?")
    log.info("%s: weights from %s", name, weights)


def read_state_dict(path: str | Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` or `.pth` file; the latter is read with `weights_only`, so no code can run."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give a path, `torchvision` or `random`")
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256.lower():
            raise InputError(f"{path}: sha256 is {found}, config says {sha256}; a different or damaged file")
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign pickle raises
        raise InputError(f"{path}: not a plain state dict of tensors ({error})") from error


def _from_torchvision(name: str) -> dict[str, torch.Tensor]:
    import torchvision  # slow to import, and not every network needs it

    try:
        return torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # includes urllib's errors
        raise InputError(
            f"ImageNet weights of {name} cannot be downloaded ({error}); put the file torchvision would fetch "
            f"({torchvision.models.get_model_weights(name).DEFAULT.url}) on this machine and give its path as "
            "`weights` in config, or ask for `random` weights, which every output then states"
        ) from error
