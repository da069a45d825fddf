"""The file that an interrupted training goes on from, and whether it was made for this one."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from glomerulearn.code_digest import code_digest
from glomerulearn.multi_gpu import place

log = logging.getLogger(__name__)


def work_digest(settings: Sequence, files: Sequence[Path], script: Path) -> str:
    """What a resume file must have been made from: settings that JSON holds, files as they are now, the code that `script`
    reaches, and as many processes, whose number decides how many steps an epoch has."""
    stated = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in map(Path, files)]
    code = code_digest(script, script.parent)
    return hashlib.sha256(json.dumps([*settings, stated, code, place()[1]], sort_keys=True).encode()).hexdigest()


def save_resume(path: Path, digest: str, parts: Mapping, state: Mapping) -> None:
    """Write what a training needs to go on: its `parts`, which have a `state_dict`, and its `state`; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"digest": digest, "state": state, **{key: part.state_dict() for key, part in parts.items()}}, partial)
    os.replace(partial, path)


def resume_from(path: Path, digest: str, parts: Mapping, state: dict) -> None:
    """Fill `parts` and `state` from the file, if there is one and it was made for `digest`; the log says if it was not."""
    if not path.is_file():
        return
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file cut short by the interruption
        log.warning("%s: not readable (%s); training starts afresh", path, error)
        return
    if saved["digest"] != digest:
        log.warning("%s: made with other settings, data, GPUs or code; training starts afresh", path)
        return
    for key, part in parts.items():
        part.load_state_dict(saved[key])
    state |= saved["state"]
    log.info("resumed after epoch %d", state["epoch"])
