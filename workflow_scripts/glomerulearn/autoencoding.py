"""Train the autoencoder on the cohort's own crops."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from glomerulearn.cohort_crops import CohortCrops, load_cohort
from glomerulearn.models import save_model
from glomerulearn.networks.autoencoder import Autoencoder
from glomerulearn.preparation import orientation

log = logging.getLogger(__name__)


def train_autoencoder(
    paths: Sequence[Path], settings: Mapping, folder: Path, device: torch.device, threads: int = 1, progress=iter
) -> dict:
    """Train the autoencoder on the crops of the reference slides and write its files into `folder`.

    settings: `pixels` (as `prepare`), `size_px`, `channels`, `latent`, `epochs`, `batch`, `learning_rate`, `val_share`,
    `seed`, and `noise`: the standard deviation of what is added to the standardised pixels that it learns to take away
    (denoising autoencoder, Vincent et al. 2008). Whole slides are held out for the validation loss where there are several.
    Returns: the model's facts.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(settings["seed"])
    rng = np.random.default_rng(settings["seed"])
    cohort = load_cohort(paths, settings["pixels"], settings["size_px"])
    order = rng.permutation(cohort.slides)
    held = order[: max(1, round(settings["val_share"] * len(order)))].tolist() if len(order) > 1 else []
    val_rows = np.isin(cohort.slide, held)
    train = _rows(cohort, ~val_rows)
    val = _rows(cohort, val_rows) if held else train
    model = Autoencoder(settings["size_px"], tuple(settings["channels"]), settings["latent"]).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), settings["learning_rate"])
    steps = settings["epochs"] * -(-len(train[0]) // settings["batch"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings["learning_rate"], total_steps=steps)
    rows, best = [], (float("inf"), {}, 0)
    for epoch in progress(range(1, settings["epochs"] + 1)):
        model.train()
        losses = []
        for picked in np.array_split(rng.permutation(len(train[0])), -(-len(train[0]) // settings["batch"])):
            images, masks = (_turn(part[picked], epoch).to(device) for part in train)
            seen = (
                images + settings["noise"] * torch.randn_like(images) * masks[:, None] if settings["noise"] else images
            )
            loss = _reconstruction_loss(model(seen), images, masks)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            val_losses = [
                _reconstruction_loss(model(images.to(device)), images.to(device), masks.to(device)).item()
                for images, masks in zip(val[0].split(settings["batch"]), val[1].split(settings["batch"]), strict=True)
            ]
        rows.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "val_loss": float(np.mean(val_losses))})
        log.info("autoencoder: %s", rows[-1])
        if rows[-1]["val_loss"] < best[0]:
            state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
            best = rows[-1]["val_loss"], state, epoch
    facts = {
        "settings": dict(settings),
        "slides": sorted(cohort.slides),
        "val_slides": sorted(held),
        "n": len(cohort.slide) // len(settings["pixels"]["stain"]),
        "best_epoch": rows[best[2] - 1],
    }
    save_model(folder, best[1], facts, rows)
    return facts


def _rows(cohort: CohortCrops, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    where = torch.from_numpy(np.flatnonzero(rows))
    return cohort.images[where], cohort.masks[where]


def _turn(batch: torch.Tensor, epoch: int) -> torch.Tensor:
    """A glomerulus has no up: every epoch shows another of the eight orientations."""
    return orientation(batch, epoch % 8).contiguous()


def _reconstruction_loss(output: torch.Tensor, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Squared error per glomerulus pixel: what is masked needs no reconstruction."""
    error = ((output - images) ** 2).mean(1)
    return (error * masks).sum() / masks.sum().clamp(min=1)
