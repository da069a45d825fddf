"""The files of a trained network, and the device it runs on.

`model.safetensors`: weights; `model.json`, the model card: what it takes to rebuild and to trust it (architecture,
settings, mpp, classes, slides and a digest of their data, scores on the val slides, versions, licence), also kept inside the
weights' file, so that this one file is enough to pass a network on; `epochs.csv`: one row per epoch.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from glomerulearn.errors import InputError
from glomerulearn.networks.segmenters import build_segmenter

_CARD = "glomerulearn"  # key of the model card in the weights' file
SECOND_LOOK = "second_look."  # what the names of a second network's weights start with, in the file of the first


def pick_device(gpu: int = 0) -> torch.device:
    """The first GPU where one was granted and is there, else the CPU."""
    return torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision: `float32`, `bfloat16`, or `auto` (bfloat16 where the processor computes it, elsewhere it is slow)."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device))
    )


def precision_of(facts: Mapping) -> str:
    """The precision that a network is to see slides in: `float32` if it was trained so, else `auto`."""
    return "float32" if facts.get("settings", {}).get("precision") == "float32" else "auto"


@cache
def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "bf16" in cpu.read_text()


def save_model(folder: Path, state: Mapping, facts: Mapping, rows: Sequence[Mapping]) -> None:
    """Write weights (safetensors), facts (JSON) and epochs (CSV) into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = {key: value.contiguous() for key, value in state.items()}  # channels_last is not
    save_file(packed, folder / "model.safetensors", {_CARD: json.dumps(facts)})
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    with (folder / "epochs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def read_facts(weights: Path, name: str) -> dict:
    """The model card inside a weights' file; `name` is what errors call the file. Raises: InputError if there is none."""
    try:
        with safe_open(weights, "pt") as file:
            card = (file.metadata() or {}).get(_CARD)
    except SafetensorError as error:
        raise InputError(
            f"{name}: not a safetensors file ({error}); give the model.safetensors of a trained segmenter"
        ) from error
    if card is None:
        raise InputError(
            f"{name}: holds weights, but no model card of this software, so it cannot be rebuilt; weights of an encoder go "
            "under `segmentation: networks`"
        )
    return json.loads(card)


def load_segmenter(folder: Path, device: torch.device | None = None) -> tuple[nn.Module, dict]:
    """The trained segmenter in `folder`, ready for inference, and its facts."""
    facts = json.loads((Path(folder) / "model.json").read_text())
    weights = load_file(Path(folder) / "model.safetensors")
    own = {key: value for key, value in weights.items() if not key.startswith(SECOND_LOOK)}
    return _rebuilt(facts, own, folder, device), facts


def load_second_look(folder: Path, device: torch.device | None = None) -> nn.Module | None:
    """The network with which the segmenter in `folder` looks again (`second_look`), ready for inference, if it has one."""
    facts = json.loads((Path(folder) / "model.json").read_text())
    if not facts.get("second_look"):
        return None
    weights = load_file(Path(folder) / "model.safetensors")
    own = {key.removeprefix(SECOND_LOOK): value for key, value in weights.items() if key.startswith(SECOND_LOOK)}
    return _rebuilt(facts, own, folder, device)


def _rebuilt(facts: Mapping, weights: Mapping, folder: Path, device: torch.device | None) -> nn.Module:
    network = dict(facts["network"]) | {"weights": "none"}  # its own weights follow
    model = build_segmenter(facts["segmenter"], network, 1 + len(facts["classes"]))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{folder}: the weights do not fit the network that the model card describes: {error}"
        ) from error
    return model.to(device or "cpu", memory_format=torch.channels_last).eval()
