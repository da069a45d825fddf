"""Slides unlike those trained on are told, the others are not."""

import numpy as np
from conftest import TILING

from glomerulearn.familiarity import file_of, known_slides, unfamiliar
from glomerulearn.patches import PatchStore
from glomerulearn.slides import open_slide
from glomerulearn.synthetic.slide_file import write_svs
from glomerulearn.tiling import tile_slide


def test_the_same_slide_is_familiar(small_store):
    store = PatchStore(small_store)
    known = known_slides([store])
    assert unfamiliar(store, known) == [] and unfamiliar(store, None) == []
    assert known["files"] == [file_of(store.attributes)] and known["mpp_level0"] == [1.0]
    assert (store.density[0] > 0.1).all()


def test_another_stain_is_told(small_slide, small_store, tmp_path):
    with open_slide(small_slide[0]) as slide:
        image = slide.read(0, 0, slide.width_px, slide.height_px, slide.mpp)
    blue = np.clip(image[..., ::-1] * np.array([0.75, 0.9, 1.0]), 0, 255).astype(np.uint8)
    write_svs(tmp_path / "blue.svs", blue, 1.0)
    tile_slide("blue", tmp_path / "blue.svs", None, TILING, tmp_path / "b.zarr.zip")
    (reason,) = unfamiliar(PatchStore(tmp_path / "b.zarr.zip"), known_slides([PatchStore(small_store)]))
    assert "optical densities" in reason


def test_a_coarser_scan_is_told(small_slide, small_store, tmp_path):
    tile_slide("coarse", small_slide[0], 3.5, TILING, tmp_path / "c.zarr.zip")
    (reason,) = unfamiliar(PatchStore(tmp_path / "c.zarr.zip"), known_slides([PatchStore(small_store)]))
    assert reason == "it has 3.5 um/px, those trained on 1 to 1"


def test_a_finer_scan_is_told_where_it_shows(small_slide, small_store, tmp_path):
    """At the store's resolution it is reduced to what the others are; a second look would see what none of them had."""
    tile_slide("coarse", small_slide[0], 2.5, TILING, tmp_path / "c.zarr.zip")
    known = known_slides([PatchStore(tmp_path / "c.zarr.zip")]) | {"density": [PatchStore(small_store).density[0]]}
    assert unfamiliar(PatchStore(small_store), known) == []
    (reason,) = unfamiliar(PatchStore(small_store), known, zoom=2)
    assert reason == "it has 1 um/px, those trained on 2.5 to 2.5"


def test_slides_of_other_institutions_are_mostly_familiar(shared, tmp_path):
    """Trained on three institutions' H&E and one's PAS, the other slides of the same are no surprise."""
    stores = []
    for path in sorted((shared / "kidney-mini" / "slides").glob("*.svs")):
        target = tmp_path / f"{path.stem}.zarr.zip"
        tile_slide(path.stem, path, None, TILING | {"mpp": 4.0}, target)
        stores.append(PatchStore(target))
    known = known_slides(stores[::2])
    assert sum(bool(unfamiliar(store, known)) for store in stores[1::2]) <= 1
    alone = known_slides([store for store in stores if store.slide.startswith("HE_I_3")])
    assert any(unfamiliar(store, alone) for store in stores)
