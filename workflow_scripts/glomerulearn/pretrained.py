"""Take in a segmenter that was trained elsewhere: a path or an address, checked before a slide is shown to it."""

import hashlib
import json
import logging
import shutil
import urllib.request
from pathlib import Path

from glomerulearn.errors import InputError
from glomerulearn.models import load_second_look, load_segmenter, read_facts

log = logging.getLogger(__name__)


def take_segmenter(name: str, source: str, mpp: float, folder: Path) -> dict:
    """Put the segmenter of `source` into `folder` as if it had been trained here (`model.safetensors`, `model.json`).

    source: path of a `model.safetensors` that this software saved (its facts are inside), or its https address; either may
    end in `#sha256=<64 hexadecimal digits>`. mpp: um per pixel of the cohort's patches.
    Returns: its facts. Raises: InputError when it cannot be had, is another file than its sha256 says, another network or
    resolution, or does not fit.
    """
    place, _, digest = source.partition("#sha256=")
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    _copy(place, weights)
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest and found != digest.lower():
        raise InputError(f"{place}: sha256 is {found}, config says {digest}; a different or damaged file")
    facts = read_facts(weights, place)
    if facts["segmenter"] != name:
        raise InputError(
            f"{place}: a {facts['segmenter']}, but config names it under `pretrained: {name}`; name it under its own"
        )
    if abs(facts["mpp"] / mpp - 1) > 1e-6:
        raise InputError(
            f"{place}: trained at {facts['mpp']} um per pixel, but `tiling: mpp` is {mpp}; give both the same"
        )
    facts |= {"pretrained": place, "sha256": found}
    (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    load_segmenter(folder), load_second_look(folder)  # fails here rather than in the job of every slide
    log.info("%s from %s (sha256 %s), trained on %s", name, place, found, ", ".join(facts["train"]))
    return facts


def _copy(place: str, target: Path) -> None:
    try:
        if place.startswith("https://"):
            with urllib.request.urlopen(place, timeout=60) as response, target.open("wb") as file:
                shutil.copyfileobj(response, file)
        else:
            shutil.copyfile(place, target)
    except OSError as error:  # includes urllib's errors
        raise InputError(
            f"config key `pretrained`: {place} cannot be had ({error}); give the path of a model.safetensors, or its "
            "https address"
        ) from error
