"""All that new glomeruli are placed with, in one file: the reducers and clusters of every space.

A slide's job takes this one file in place of two for each space, and Snakemake plans a cohort of many slides sooner.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import joblib
import numpy as np

Space = tuple[str, str]  # extractor and reducer


def pack_fits(reducers: Mapping[Space, Path], fits: Mapping[Space, Path], voices: Sequence[Path], target: Path) -> None:
    """Write the fitted reducers (`.joblib`), the clusters of every space (`.npz`), and the consensus' voices, if any."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(target, "w") as archive:  # stored: they are packed as well as they can be; without dates
        for kind, files in (("reducer", reducers), ("clusters", fits)):
            for (extractor, reducer), path in files.items():
                archive.writestr(ZipInfo(f"{kind}/{extractor}/{reducer}"), Path(path).read_bytes())
        for path in voices:
            archive.writestr(ZipInfo("voices"), Path(path).read_bytes())


class Fitted:
    """What `pack_fits` has written, each part read when it is asked for. `spaces`: those that have clusters, in order."""

    def __init__(self, path: Path):
        self.archive = ZipFile(path)
        clusters = [name for name in self.archive.namelist() if name.startswith("clusters/")]
        self.spaces: list[Space] = [tuple(name.split("/")[1:]) for name in clusters]

    def clusters(self, space: Space) -> dict[str, np.ndarray]:
        """The arrays that `cluster_glomeruli` has written of a space."""
        return dict(np.load(io.BytesIO(self.archive.read("/".join(("clusters", *space))))))

    def reduction(self, space: Space):
        """The fitted `Reduction` of a space."""
        with self.archive.open("/".join(("reducer", *space))) as file:
            return joblib.load(file)

    @property
    def voices(self) -> list[dict]:
        """The variants that the consensus hears."""
        return json.loads(self.archive.read("voices"))

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.archive.close()
