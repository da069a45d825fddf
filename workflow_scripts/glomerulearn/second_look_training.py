"""Train the network of the second look."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from glomerulearn.augmentation import change_colours, random_view
from glomerulearn.models import SECOND_LOOK, load_segmenter, save_model
from glomerulearn.places import MISTAKE, TISSUE, Place, find_places
from glomerulearn.resuming import work_digest
from glomerulearn.sampling import Slide, usable
from glomerulearn.training import Trainer, best_row, fit

_MISTAKE_SHARE = 0.6  # of the windows without a glomerulus; the others show tissue anywhere
_SHIFT = 0.2  # how far from its place a window's middle lies, as a share of its side


class PlaceWindows(Dataset):
    """Augmented windows without end around places, `length` to an epoch; items as `RandomWindows`'s.

    A share `glomerulus_share` shows outlined glomeruli, each label as often, the rest mistakes of the first look and tissue.
    """

    def __init__(self, places: Sequence[Place], settings: Mapping):
        self.settings, self.length = settings, settings["windows_per_epoch"]
        self.by_kind = defaultdict(list)
        for place in places:
            self.by_kind[place.kind].append(place)
        self.labels = sorted(set(self.by_kind) - {MISTAKE, TISSUE})

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.settings["seed"], *divmod(index, self.length)))
        some = self.by_kind[self._kind(rng)]
        place = some[rng.integers(len(some))]
        size, augmentation = self.settings["window_px"], self.settings["augmentation"]
        centre = np.full(2, len(place.labels) / 2) + rng.uniform(-_SHIFT, _SHIFT, 2) * size
        image, label = random_view(_reader(place.image, 255), _reader(place.labels, 0), centre, size, augmentation, rng)
        return change_colours(image, augmentation, rng), _told(label, self.settings)

    def _kind(self, rng) -> str:
        if self.labels and rng.random() < self.settings["glomerulus_share"]:
            return self.labels[rng.integers(len(self.labels))]
        return MISTAKE if self.by_kind[MISTAKE] and rng.random() < _MISTAKE_SHARE else TISSUE


class PlacesAsTheyAre(Dataset):
    """The middle of every place once: for watching training on the validation slides."""

    def __init__(self, places: Sequence[Place], settings: Mapping):
        self.places, self.settings = places, settings

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        place, size = self.places[index], self.settings["window_px"]
        middle = slice((len(place.labels) - size) // 2, (len(place.labels) + size) // 2)
        return place.image[middle, middle], _told(place.labels[middle, middle], self.settings)


def _told(label: np.ndarray, settings: Mapping) -> np.ndarray:
    return (label if settings["tell_labels"] else label > 0).astype(np.int64)


def _reader(values: np.ndarray, beyond: int):
    """Windows (x, y, width, height) of an array, `beyond` outside of it."""

    def read(x: int, y: int, width: int, height: int) -> np.ndarray:
        window = np.full((height, width, *values.shape[2:]), beyond, np.uint8)
        rows, columns = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        part = values[rows, columns]
        top, left = rows.start - y, columns.start - x
        window[top : top + part.shape[0], left : left + part.shape[1]] = part
        return window

    return read


def train_second_look(
    first: Path,
    train: Sequence[Slide],
    val: Sequence[Slide],
    scans: Mapping[str, Path],
    settings: Mapping,
    folder: Path,
    device: torch.device | None = None,
    threads: int = 1,
    progress=iter,
    licence: str | None = None,
) -> dict:
    """Train the second look of the segmenter in folder `first`, from its weights; write both into `folder` as one model.

    train, val: as `train_segmenter`'s; scans: slide -> its file. settings: as `train_segmenter`'s, and `zoom`: how many times
    finer than the patches its windows are. Mistakes are looked for on the slides that the first look was trained on.
    A place that cannot be read is left out, and the log says so.
    An interrupted run goes on as `train_segmenter`'s does. Returns: the content of `model.json`.
    Raises: InputError when a split has no usable slide, or a slide's file cannot be opened.
    """
    device = device or torch.device("cpu")
    torch.set_num_threads(threads)
    train, val = usable(train, "train"), usable(val, "val")
    model, facts = load_segmenter(first, device)
    watched = PlacesAsTheyAre(find_places(val, scans, model, facts, settings, device), settings)
    trainer = second_look_trainer(model, facts, train, scans, settings, device)
    resume = Path(folder) / "resume.pt"
    files = [Path(first) / "model.safetensors", *(path for slide in (*train, *val) for path in slide)]
    digest = work_digest([dict(settings)], files, Path(__file__))
    state = fit(f"{facts['segmenter']}, second look", trainer, watched, resume, digest, progress)
    weights = load_file(Path(first) / "model.safetensors")
    weights |= {SECOND_LOOK + key: value for key, value in state["best_state"].items()}
    facts |= {"second_look": _card(settings, trainer.data, best_row(state)), "licence": licence}
    save_model(folder, weights, facts, state["rows"])
    resume.unlink(missing_ok=True)
    return facts


def second_look_trainer(
    model: nn.Module,
    facts: Mapping,
    train: Sequence[Slide],
    scans: Mapping[str, Path],
    settings: Mapping,
    device: torch.device,
) -> Trainer:
    """The first look's network, with windows that show what it has to learn.

    model, facts: as `load_segmenter` gives them; the others as `train_second_look`'s.
    """
    places = find_places(train, scans, model, facts, settings, device)
    torch.manual_seed(settings["seed"])
    return Trainer(model, PlaceWindows(places, settings), settings, device)


def _card(settings: Mapping, data: PlaceWindows, best: Mapping) -> dict:
    return {
        "zoom": settings["zoom"],
        "window_px": settings["window_px"],
        "settings": dict(settings),
        "places": {kind: len(places) for kind, places in sorted(data.by_kind.items())},
        "best_epoch": best,
    }
