"""Train an encoder on the cohort's own crops by contrast (SimCLR, Chen et al. 2020): no labels, no weights from elsewhere.

Two views of a glomerulus shall lie close together, views of different glomeruli apart. What views differ in (orientation,
place, size, stain, sharpness) the vectors then do not tell; the laboratory's stain above all.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glomerulearn.augmentation import density_matrix
from glomerulearn.cohort_crops import load_cohort
from glomerulearn.models import autocast, save_model
from glomerulearn.networks.contrastive import ContrastiveNet
from glomerulearn.preparation import STD, to_rgb

log = logging.getLogger(__name__)


def train_contrastive(
    paths: Sequence[Path], settings: Mapping, folder: Path, device: torch.device, threads: int = 1, progress=iter
) -> dict:
    """Train the contrastive encoder on the crops of the reference slides and write its files into `folder`.

    settings: `pixels` (as `prepare`), `size_px`, `channels`, `projection`, `epochs`, `batch`, `learning_rate`, `temperature`,
    `views` (as `random_views`), `seed`. Returns: the model's facts. Raises: InputError for fewer than two glomeruli.
    """
    from pytorch_metric_learning.losses import NTXentLoss  # slow to import

    torch.set_num_threads(threads)
    torch.manual_seed(settings["seed"])
    rng = np.random.default_rng(settings["seed"])
    cohort = load_cohort(paths, settings["pixels"], settings["size_px"])
    # the same glomerulus in another stain is one more view of it
    stains, total = len(settings["pixels"]["stain"]), len(cohort.images) // len(settings["pixels"]["stain"])
    model = ContrastiveNet(tuple(settings["channels"]), settings["projection"])
    model.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), settings["learning_rate"], weight_decay=1e-4)
    batch = min(settings["batch"], total)
    steps = max(1, total // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings["learning_rate"], total_steps=settings["epochs"] * steps
    )
    loss_of = NTXentLoss(temperature=settings["temperature"])
    rows = []
    model.train()
    for epoch in progress(range(1, settings["epochs"] + 1)):
        losses = []
        for picked in np.array_split(rng.permutation(total)[: batch * steps], steps):
            views = []
            for _ in range(2):
                where = torch.from_numpy(picked + total * rng.integers(stains, size=len(picked)))
                images, masks = (part[where].to(device) for part in (cohort.images, cohort.masks))
                views.append(random_views(images, masks, settings["views"], rng))
            images, masks = (torch.cat(parts) for parts in zip(*views, strict=True))
            with autocast("auto", device):
                vectors = model(images.contiguous(memory_format=torch.channels_last), masks)
            loss = loss_of(vectors.float(), torch.arange(len(picked), device=device).repeat(2))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        rows.append({"epoch": epoch, "train_loss": float(np.mean(losses))})
        log.info("contrastive: %s", rows[-1])
    facts = {"settings": dict(settings), "slides": cohort.slides, "n": total, "best_epoch": rows[-1]}
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    save_model(folder, state, facts, rows)
    return facts


def random_views(
    images: torch.Tensor, masks: torch.Tensor, settings: Mapping, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Another view of every glomerulus: turned, moved, nearer or farther, in another stain, more or less sharp.

    images: as `prepare`'s (N, 3, h, w); masks: (N, h, w). settings: `scale` [nearest, farthest], `shift` (share of the
    side), `stain` and `colour` (standard deviations of logarithms, as `augmentation`'s), `blur` (chance).
    """
    count, device = len(images), images.device
    angle, flip = rng.uniform(0, 2 * np.pi, count), rng.choice([-1.0, 1.0], count)
    zoom = np.exp(rng.uniform(*np.log(settings["scale"]), count))
    shift = rng.uniform(-settings["shift"], settings["shift"], (count, 2)) * 2
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.stack(
        [np.stack([cosine * flip, -sine, shift[:, 0]], 1), np.stack([sine * flip, cosine, shift[:, 1]], 1)], 1
    )
    grid = nn.functional.affine_grid(
        torch.from_numpy(matrix).float().to(device), list(images.shape), align_corners=False
    )
    both = nn.functional.grid_sample(torch.cat([images, masks[:, None]], 1), grid, align_corners=False)
    images, masks = both[:, :3], both[:, 3]
    images = _jitter_stain(images, settings["stain"], settings["colour"], rng)
    if settings["blur"]:
        soft = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
        chosen = torch.from_numpy(rng.random(count) < settings["blur"]).to(device)
        images = torch.where(chosen[:, None, None, None], soft, images)
    return images * masks[:, None], masks


def _jitter_stain(images: torch.Tensor, stain: float, colour: float, rng: np.random.Generator) -> torch.Tensor:
    """Vary each dye's strength and the scanner's colours, in optical density (Tellez et al. 2018)."""
    matrices = np.stack([density_matrix(stain, colour, rng) for _ in range(len(images))])
    matrix = torch.from_numpy(matrices).float().to(images.device)
    density = -torch.log((to_rgb(images) * 255 + 1).clamp(1, 256) / 256)
    density = torch.einsum("nchw,ncd->ndhw", density, matrix[:, :3]) + matrix[:, 3, :, None, None]
    changed = (256 * torch.exp(-density) - 1).clamp(0, 255) / 255
    return images + (changed - to_rgb(images)) / torch.tensor(STD, device=images.device)[:, None, None]
