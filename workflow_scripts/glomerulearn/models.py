"""The files of a trained network, and the device it runs on.

`model.safetensors`: weights; `model.json`: what it takes to rebuild and to trust it (architecture, settings, slides, best
epoch, scores); `epochs.csv`: one row per epoch.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from glomerulearn.networks.segmenters import build_segmenter


def pick_device(gpu: int = 0) -> torch.device:
    """The first GPU where one was granted and is there, else the CPU."""
    return torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision: `float32`, `bfloat16`, or `auto` (bfloat16 where the processor computes it, elsewhere it is slow)."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device))
    )


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
    save_file(dict(state), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    with (folder / "epochs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def load_segmenter(folder: Path, device: torch.device | None = None) -> tuple[nn.Module, dict]:
    """The trained segmenter in `folder`, ready for inference, and its facts."""
    facts = json.loads((Path(folder) / "model.json").read_text())
    network = dict(facts["network"]) | {"weights": "none"}  # its own weights follow
    model = build_segmenter(facts["segmenter"], network, 1 + len(facts["classes"]))
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.to(device or "cpu", memory_format=torch.channels_last).eval(), facts
