"""Turn every glomerulus crop of a slide into a vector."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from glomerulearn.crops import CropStore
from glomerulearn.extractors import Extractor, build_extractor
from glomerulearn.models import autocast
from glomerulearn.preparation import orientation, prepare
from glomerulearn.vectors import write_vectors


def embed_slide(
    extractor: str, crops: Path, settings: Mapping, model_folder: Path | None, target: Path, device: torch.device,
    threads: int = 1, progress=iter,
) -> None:  # fmt: skip
    """Embed the crops of one slide and write `target`, as `write_vectors` does.

    settings: `pixels` (of which `stain` lists the methods that the vector is averaged over), `orientations` (1 or 8: average
    over flips and rotations too), `batch`, and those of `build_extractor`.
    """
    torch.set_num_threads(threads)
    store = CropStore(crops)
    network = build_extractor(extractor, settings, model_folder, device)
    vectors = _embed(network, store, settings, device, progress)
    facts = {"extractor": extractor, "weights": network.weights, "scale": "kept"}
    write_vectors(target, store.slide, store.records, vectors, facts)


def _embed(network: Extractor, store: CropStore, settings: Mapping, device: torch.device, progress) -> np.ndarray:
    """Vectors float32 (N, d): for each crop the mean over stains and orientations."""
    batch, total = settings["batch"], 0.0
    for stain in settings["pixels"]["stain"]:
        images, masks = prepare(store, settings["pixels"], network.size_px, stain)
        parts = []
        with torch.no_grad(), autocast("auto", device):
            for start in progress(range(0, len(images), batch)):
                now = [torch.from_numpy(part[start : start + batch]).to(device) for part in (images, masks)]
                turned = [
                    network.embed(*(orientation(each, number).contiguous() for each in now)).float()
                    for number in range(settings["orientations"])
                ]
                parts.append(torch.stack(turned).mean(0).cpu().numpy())
        total = total + (np.concatenate(parts) if parts else np.zeros((0, 0), np.float32))
    return total / np.float32(len(settings["pixels"]["stain"]))
