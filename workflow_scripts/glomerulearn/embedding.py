"""Turn every glomerulus crop into a vector: an autoencoder trained on the cohort, or VGG19 / ResNet50.

Pixels first: the stain is normalised per slide, the background masked, the glomerulus rescaled to its box, because
otherwise vectors tell the laboratory, the neighbourhood and the size before they tell the tissue.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from glomerulearn.crops import CropStore
from glomerulearn.errors import InputError
from glomerulearn.models import autocast
from glomerulearn.networks.autoencoder import Autoencoder
from glomerulearn.networks.weights import load_encoder_weights
from glomerulearn.stain import normalise

log = logging.getLogger(__name__)

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
PRETRAINED = ("vgg19", "resnet50")


def prepare(store: CropStore, settings: Mapping, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The crops of one slide as a network takes them.

    settings: `stain` (none | reinhard | macenko), `mask_background`, `box` (rescale to the glomerulus' bounding box).
    Returns: float32 (N, 3, size_px, size_px), ImageNet-standardised, masked background 0; float32 masks (N, size, size).
    """
    images, masks = store.images, store.masks
    images = normalise(images, masks, settings["stain"])
    pairs = [_fit(image, mask, size_px, settings["box"]) for image, mask in zip(images, masks, strict=True)]
    if not pairs:
        return np.zeros((0, 3, size_px, size_px), np.float32), np.zeros((0, size_px, size_px), np.float32)
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    images = (images.astype(np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_STD
    if settings["mask_background"]:
        images *= masks[..., None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), masks


def _fit(image: np.ndarray, mask: np.ndarray, size: int, box: bool) -> tuple[np.ndarray, np.ndarray]:
    if box and mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        # the square around the glomerulus; outside the crop the edge goes on, which masking then hides
        side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        centre = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    else:
        side, centre = max(mask.shape), (mask.shape[1] / 2, mask.shape[0] / 2)
    zoom = side / size
    offset = [middle - side / 2 + 0.5 * zoom - 0.5 for middle in centre]
    matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
    if zoom > 1:
        # warping does not average: blur first by what is lost
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * zoom)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return image, cv2.warpAffine(mask.astype(np.float32), matrix, (size, size), flags=flags)


def orientation(batch: torch.Tensor, number: int) -> torch.Tensor:
    """One of the eight ways to lay a square: `number` 0 to 7; batch (..., h, w)."""
    batch = torch.rot90(batch, number % 4, (-2, -1))
    return batch.flip(-1) if number >= 4 else batch


def embed_slide(
    extractor: str, crops: Path, settings: Mapping, model_folder: Path | None, target: Path, device: torch.device,
    threads: int = 1, progress=iter,
) -> None:  # fmt: skip
    """Embed the crops of one slide and write `target` (`.npz`: glomerulus, vectors float32 (N, d), cut, label, facts).

    settings: `pixels`, `orientations` (1 or 8: average the vector over flips and rotations), `size_px`, `batch`, and for
    the torchvision networks `weights`, `sha256`, `seed`.
    """
    torch.set_num_threads(threads)
    store = CropStore(crops)
    embed, size_px = _embedder(extractor, settings, model_folder, device)
    images, masks = prepare(store, settings["pixels"], size_px)
    parts = []
    with torch.no_grad(), autocast("auto", device):
        for start in progress(range(0, len(images), settings["batch"])):
            batch = [torch.from_numpy(part[start : start + settings["batch"]]).to(device) for part in (images, masks)]
            turned = [embed(*(orientation(each, i) for each in batch)) for i in range(settings["orientations"])]
            parts.append(torch.stack(turned).mean(0).float().cpu().numpy())
    facts = {"extractor": extractor, "slide": store.slide, "weights": settings.get("weights", "trained on the cohort")}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        target,
        glomerulus=store.records["glomerulus"].to_numpy(str),
        vectors=np.concatenate(parts) if parts else np.zeros((0, 0), np.float32),
        cut=store.records["cut"].to_numpy(bool),
        label=store.records["label"].to_numpy(str),
        facts=json.dumps(facts),
    )


def _embedder(extractor: str, settings: Mapping, model_folder: Path | None, device: torch.device):
    if extractor == "autoencoder":
        facts = json.loads((Path(model_folder) / "model.json").read_text())["settings"]
        model = Autoencoder(facts["size_px"], tuple(facts["channels"]), facts["latent"])
        model.load_state_dict(load_file(Path(model_folder) / "model.safetensors"))
        model.to(device).eval()
        return lambda images, masks: model.encode(images), facts["size_px"]
    if extractor not in PRETRAINED:
        raise InputError(f"extractor {extractor!r} is unknown; known are autoencoder, {', '.join(PRETRAINED)}")
    import torchvision  # slow to import, and only these extractors need it

    torch.manual_seed(settings["seed"])  # what `random` weights are drawn from
    model = getattr(torchvision.models, extractor)(weights=None)
    load_encoder_weights(model, extractor, settings["weights"], settings["sha256"])
    if settings["weights"] == "random":
        log.warning("%s has RANDOM weights, as config asks: its clusters are no evidence", extractor)
    trunk = model.features if extractor == "vgg19" else nn.Sequential(*list(model.children())[:-2])
    trunk.to(device).eval()
    return lambda images, masks: _masked_mean(trunk(images), masks), settings["size_px"]


def _masked_mean(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Average features (N, c, h, w) over the glomerulus: (N, c)."""
    weights = nn.functional.adaptive_avg_pool2d(masks[:, None], features.shape[-2:])
    return (features * weights).sum((2, 3)) / weights.sum((2, 3)).clamp(min=1e-6)
