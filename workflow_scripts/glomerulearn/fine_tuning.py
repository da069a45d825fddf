"""Fine-tune a pretrained network on whether a window holds a glomerulus: the task that the original study gave its extractors."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from glomerulearn.extractors import pretrained_network
from glomerulearn.models import autocast, save_model
from glomerulearn.preparation import MEAN, STD
from glomerulearn.sampling import RandomWindows, Slide, usable

log = logging.getLogger(__name__)

_HOLDS = 0.05  # share of a window's pixels from which it holds a glomerulus; with fewer it shows the rim of one, and is left out
_DRAW = {"glomerulus_share": 0.5, "class_balance": 0.5, "paste": 0.0, "same_size": False}


def fine_tune(
    name: str, train: Sequence[Slide], val: Sequence[Slide], settings: Mapping, folder: Path, device: torch.device,
    threads: int = 1, progress=iter,
) -> dict:  # fmt: skip
    """Fine-tune extractor `name` on windows of the slides `train`, keep the epoch that is best on `val`, and save it.

    train, val: of each slide its patch store and its outlines. settings: as `pretrained_network`; `window_px` (at the patches'
    mpp), `size_px` that windows are brought to, `epochs`, `windows_per_epoch`, `batch`, `learning_rate`; `normalise` and
    `augmentation` as for segmenters. Returns: the model's facts. Raises: InputError where no train slide, or no val slide,
    has a glomerulus.
    """
    torch.set_num_threads(threads)
    network, start = pretrained_network(name, settings)
    network.reset_classifier(2)
    network.to(device, memory_format=torch.channels_last)
    batches = {
        split: _Batches(split, slides, length, settings)
        for split, slides, length in (
            ("train", train, settings["windows_per_epoch"]),
            ("val", val, max(settings["batch"], settings["windows_per_epoch"] // 4)),
        )
    }
    optimiser = torch.optim.AdamW(network.parameters(), settings["learning_rate"], weight_decay=0.01)
    steps = settings["epochs"] * len(batches["train"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings["learning_rate"], total_steps=steps)
    rows, best = [], (float("inf"), {}, 0)
    for epoch in progress(range(1, settings["epochs"] + 1)):
        network.train()
        losses = []
        for images, holds in batches["train"].of(epoch, device):
            with autocast("auto", device):
                logits = network(images)
            loss = nn.functional.cross_entropy(logits.float(), holds)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            schedule.step()
        rows.append({"epoch": epoch, "train_loss": float(np.mean(losses)), **_judge(network, batches["val"], device)})
        log.info("%s: %s", name, rows[-1])
        if rows[-1]["val_loss"] < best[0]:
            state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
            best = rows[-1]["val_loss"], state, epoch
    facts = {
        "settings": dict(settings),
        "weights": f"{start}, fine-tuned on the cohort",
        "train": [store.slide for store in batches["train"].windows.stores],
        "val": [store.slide for store in batches["val"].windows.stores],
        "best_epoch": rows[best[2] - 1],
    }
    save_model(folder, best[1], facts, rows)
    return facts


class _Batches:
    """Batches of random windows, and whether each holds a glomerulus."""

    def __init__(self, split: str, slides: Sequence[Slide], length: int, settings: Mapping):
        slides = usable(slides, split)
        self.windows = RandomWindows(slides, settings["window_px"], length, settings | _DRAW, settings["seed"])
        self.batch, self.size = settings["batch"], settings["size_px"]

    def __len__(self) -> int:
        return -(-self.windows.length // self.batch)

    def of(self, epoch: int, device: torch.device):
        """Images float32 (n, 3, size_px, size_px), ImageNet-standardised, and 0 or 1 int64 (n,), batch by batch."""
        first = epoch * self.windows.length
        for places in np.array_split(np.arange(first, first + self.windows.length), len(self)):
            images, masks = (np.stack(part) for part in zip(*(self.windows[int(i)] for i in places), strict=True))
            shares = masks.mean((1, 2))
            clear = (shares == 0) | (shares >= _HOLDS)
            if clear.any():
                standard = ((images[clear] / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2)
                tensor = torch.from_numpy(np.ascontiguousarray(standard)).to(device)
                sized = nn.functional.interpolate(tensor, (self.size, self.size), mode="bilinear", antialias=True)
                holds = torch.from_numpy((shares[clear] > 0).astype(np.int64)).to(device)
                yield sized.contiguous(memory_format=torch.channels_last), holds


@torch.no_grad()
def _judge(network: nn.Module, batches: _Batches, device: torch.device) -> dict[str, float]:
    network.eval()
    logits, truth = [], []
    for images, holds in batches.of(0, device):  # the same windows every time
        logits.append(network(images).float().cpu())
        truth.append(holds.cpu())
    logits, truth = torch.cat(logits), torch.cat(truth)
    loss = nn.functional.cross_entropy(logits, truth).item()
    return {"val_loss": loss, "val_balanced_accuracy": float(balanced_accuracy_score(truth, logits.argmax(1)))}
