"""Train a segmenter: one loop for all networks, with early stopping, the best epoch kept, resumable."""

import copy
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from glomerulearn.familiarity import data_digest, file_of, known_slides
from glomerulearn.losses import deep_loss, glomerulus_weights, segmentation_loss
from glomerulearn.models import autocast, save_model
from glomerulearn.multi_gpu import as_leader_says, place
from glomerulearn.networks.segmenters import build_segmenter
from glomerulearn.patches import PatchStore
from glomerulearn.resuming import resume_from, save_resume, work_digest
from glomerulearn.sampling import EpochSampler, GridWindows, RandomWindows, Slide, to_tensor, usable
from glomerulearn.scoring import PixelCounts

log = logging.getLogger(__name__)


class Trainer:
    """A network in training: the average of its weights, its optimiser, and the windows it is fed.

    model: a segmenter; data: windows without end, as `RandomWindows`; settings: as `train_segmenter`'s.
    """

    def __init__(self, model: nn.Module, data: Dataset, settings: Mapping, device: torch.device):
        self.data, self.settings, self.device = data, settings, device
        self.model = model.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model)
        self._followed = _floating(self.average), _floating(self.model)  # looked up once: it takes as long as following
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
        )
        # what steps run through: the same network, compiled, and on several GPUs in step with its copies
        self.stepping = torch.compile(self.model) if settings["compile"] else self.model
        rank, processes = place()
        if processes > 1:
            self.stepping = nn.parallel.DistributedDataParallel(self.stepping)
        self.sampler = EpochSampler(data.length, rank, processes)
        self.loader = DataLoader(
            data,
            settings["batch"],
            sampler=self.sampler,
            num_workers=settings["workers"],
            persistent_workers=settings["workers"] > 0,
            pin_memory=device.type == "cuda",
            # a batch of one window has no spread, which DeepLabV3+'s batch norm over whole windows needs
            drop_last=len(self.sampler) % settings["batch"] == 1 and len(self.sampler) > 1,
            collate_fn=_collate_weighed,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings["learning_rate"], total_steps=settings["epochs"] * len(self.loader)
        )

    @property
    def parts(self) -> dict:
        """What a run that goes on needs to have back."""
        return {name: getattr(self, name) for name in ("model", "average", "optimiser", "schedule")}

    def run_epoch(self, epoch: int) -> float:
        """Train on the windows of an epoch (from 1); `average` follows `model`. Returns: the mean loss."""
        self.model.train()
        self.sampler.epoch = epoch
        losses = []  # stay on the device, so that no step waits for another's
        for images, labels, weights in self.loader:
            images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            labels, weights = (part.to(self.device, non_blocking=True) for part in (labels, weights))
            with autocast(self.settings["precision"], self.device):
                outputs = self.stepping(images)
            loss, own_loss = deep_loss(outputs, labels, weights)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimiser.step()
            self.schedule.step()
            # a short memory at first, so that the average does not drag the random start along
            step = self.schedule.last_epoch
            get_ema_multi_avg_fn(min(self.settings["ema"], (1 + step) / (10 + step)))(*self._followed, step)
            losses.append(own_loss)
        return torch.stack(losses).mean().item()


def train_segmenter(
    name: str,
    train: Sequence[Slide],
    val: Sequence[Slide],
    settings: Mapping,
    folder: Path,
    device: torch.device | None = None,
    threads: int = 1,
    progress=iter,
    licence: str | None = None,
) -> dict:
    """Train segmenter `name` on the slides `train`, watched on `val`; write model files into `folder`.

    train, val: of each slide its patch store and its outlines.

    settings: `network` (keyword arguments of the architecture), `window_px`, `batch`, `epochs`, `windows_per_epoch`,
    `learning_rate`, `weight_decay`, `patience` (epochs), `ema` (decay per step), `glomerulus_share`, `class_balance`,
    `paste`, `normalise` (give all slides one stain first), `same_size` (and glomeruli of one size), `augmentation`,
    `tell_labels` (labels are classes of their own), `precision` (auto | float32 | bfloat16), `compile` (through
    torch.compile), `workers`, `seed`.
    licence: under which others may use the weights, for the model card.
    An interrupted run goes on from its last epoch when settings, data, code and the number of GPUs are the same, else starts
    afresh.
    Where several processes train together (`multi_gpu`), the first one watches, writes and returns.
    Returns: the content of `model.json`. Raises: InputError when a split has no usable slide or no outline.
    """
    device = device or torch.device("cpu")
    torch.set_num_threads(threads)
    train, val = usable(train, "train"), usable(val, "val")
    trainer = segmenter_trainer(name, train, settings, device)
    watched = GridWindows(val, settings["tell_labels"], settings["normalise"], trainer.data.usual_um)
    resume = Path(folder) / "resume.pt"
    digest = work_digest([name, settings], [path for slide in (*train, *val) for path in slide], Path(__file__))
    state = fit(name, trainer, watched, resume, digest, progress)
    if place()[0] != 0:
        return {}
    facts = model_card(name, settings, trainer, train, val) | {"best_epoch": best_row(state), "licence": licence}
    save_model(folder, state["best_state"], facts, state["rows"])
    resume.unlink(missing_ok=True)
    return facts


def segmenter_trainer(name: str, train: Sequence[Slide], settings: Mapping, device: torch.device) -> Trainer:
    """Segmenter `name`, from its start, with the windows of the slides `train`; arguments as `train_segmenter`'s."""
    torch.manual_seed(settings["seed"])
    data = RandomWindows(
        train, settings["window_px"], settings["windows_per_epoch"], settings, settings["seed"], settings["tell_labels"]
    )
    model = build_segmenter(name, settings["network"], 1 + len(classes_of(train, settings)))
    return Trainer(model, data, settings, device)


def classes_of(train: Sequence[Slide], settings: Mapping) -> list[str]:
    """What a segmenter tells from background: glomeruli, or their labels."""
    return PatchStore(*train[0]).labels if settings["tell_labels"] else ["glomerulus"]


def fit(name: str, trainer: Trainer, watched: Dataset, resume: Path, digest: str, progress=iter) -> dict:
    """Train until the epochs are over, or none has been better on the windows `watched` for as long as patience lasts.

    resume: file that an interrupted run goes on from, if it was made for the same `digest`.
    Returns: `rows` (of epochs.csv), `best_epoch` and, in the first process, `best_state`, the weights of that epoch.
    """
    settings, leads = trainer.settings, place()[0] == 0
    state = {"epoch": 0, "rows": [], "best": -1.0, "best_epoch": 0, "best_state": None}
    resume_from(resume, digest, trainer.parts, state)
    rounds = progress(range(state["epoch"] + 1, settings["epochs"] + 1))
    for epoch in rounds:
        if epoch - state["best_epoch"] > settings["patience"]:
            log.info("%s: no better epoch since %d; stopped early", name, state["best_epoch"])
            break
        started = time.perf_counter()
        loss = trainer.run_epoch(epoch)
        if leads:
            with torch.no_grad():
                val_loss, counts = evaluate(trainer.average, watched, settings, trainer.device)
            state["rows"].append(
                {
                    "epoch": epoch,
                    "train_loss": round(loss, 5),
                    "val_loss": round(val_loss, 5),
                    "val_accuracy": round(counts.accuracy, 5),
                    "val_mean_iou": round(counts.mean_iou, 5),
                    "val_dice": round(counts.dice, 5),
                    "learning_rate": trainer.schedule.get_last_lr()[0],
                    "seconds": round(time.perf_counter() - started, 1),
                }
            )
            _log_epoch(name, state["rows"], settings["epochs"])
            if hasattr(rounds, "set_postfix"):
                rounds.set_postfix(loss=f"{loss:.3f}", val_dice=f"{counts.dice:.3f}")
            if counts.mean_iou > state["best"]:
                kept = trainer.average.state_dict().items()
                weights = {key: value.detach().cpu().clone() for key, value in kept}
                state |= {"best": counts.mean_iou, "best_epoch": epoch, "best_state": weights}
            state["epoch"] = epoch
            save_resume(resume, digest, trainer.parts, state)
        state["best_epoch"] = as_leader_says(state["best_epoch"])
    return state


def best_row(state: Mapping) -> dict:
    """The row of the epoch that is kept, but for its seconds, which differ where the weights do not."""
    row = next(dict(row) for row in state["rows"] if row["epoch"] == state["best_epoch"])
    del row["seconds"]
    return row


def model_card(name: str, settings: Mapping, trainer: Trainer, train: Sequence[Slide], val: Sequence[Slide]) -> dict:
    """What it takes to rebuild a network and to know where it may be used: architecture, data, resolution, versions."""
    stores, watched = ([PatchStore(*slide) for slide in slides] for slides in (train, val))
    return {
        "segmenter": name,
        "network": dict(settings["network"]),
        "settings": dict(settings),
        "mpp": stores[0].mpp,
        "normalise": settings["normalise"],
        "usual_um": trainer.data.usual_um,
        "classes": classes_of(train, settings),
        "train": [store.slide for store in stores],
        "val": [store.slide for store in watched],
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "known": known_slides(stores) | {"val_files": [file_of(store.attributes) for store in watched]},
        "data": data_digest([*stores, *watched]),
        "versions": {name: version(name) for name in ("torch", "torchvision")} | {"python": platform.python_version()},
    }


def _log_epoch(name: str, rows: Sequence[Mapping], epochs: int) -> None:
    left = np.mean([row["seconds"] for row in rows]) * (epochs - len(rows))
    log.info(
        "%s: epoch %d of %d, at most %s left: %s", name, len(rows), epochs, timedelta(seconds=round(left)), rows[-1]
    )


def evaluate(model, windows: Dataset, settings: Mapping, device) -> tuple[float, PixelCounts]:
    """Mean loss and pixel counts of `model` over `windows`, as `GridWindows`."""
    model.eval()
    losses, counts = [], PixelCounts()
    for images, labels in DataLoader(windows, settings["batch"], collate_fn=_collate):
        with autocast(settings["precision"], device):
            logits = model(images.to(device, memory_format=torch.channels_last)).float().cpu()
        losses.append(segmentation_loss(logits, labels).item() * len(images))
        counts += PixelCounts.of(logits.softmax(1)[:, 0].numpy() < 0.5, labels.numpy() > 0)
    return sum(losses) / len(windows), counts


def _collate(items) -> tuple[torch.Tensor, torch.Tensor]:
    return to_tensor(np.stack([image for image, _ in items])), torch.from_numpy(np.stack([label for _, label in items]))


def _collate_weighed(items) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, labels = _collate(items)
    return images, labels, torch.from_numpy(glomerulus_weights(labels.numpy()))


def _floating(model: nn.Module) -> list[torch.Tensor]:
    """Weights, and the statistics of batch norm, which must be as old as the weights they belong to."""
    return [values for values in (*model.parameters(), *model.buffers()) if values.is_floating_point()]
