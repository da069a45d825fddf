"""Glomeruli of another size, or under another mpp, look alike to a segmenter: in training and on the slide it is run on."""

import cv2
import numpy as np
import pytest
import tifffile
import torch
from conftest import OUTLINES, TILING
from test_detection import SETTINGS, Coarse, Darkness

from glomerulearn import detection, places, typical_size
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import GridWindows, RandomWindows
from glomerulearn.slide_outlines import read_slide_outlines
from glomerulearn.tiling import tile_slide

CPU = torch.device("cpu")
STILL = {"flip": False, "rotation": False, "scale": [1, 1], "elastic_px": 0, "stain": 0, "colour": 0, "blur": 0}
WINDOWS = {
    "augmentation": STILL, "glomerulus_share": 1.0, "class_balance": 0.0, "paste": 0.0, "normalise": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def halved(small_slide, tmp_path_factory):
    """The small slide as it is (1 um/px), and the same file as if it had half the mpp: patch stores and outlines."""
    folder = tmp_path_factory.mktemp("halved")
    made = []
    for mpp in (1.0, 0.5):
        store, outlines = folder / f"{mpp}.zarr.zip", folder / f"{mpp}.geojson"
        assert tile_slide(f"at {mpp}", small_slide[0], mpp, TILING, store)["status"] == "ok"
        read_slide_outlines(f"at {mpp}", small_slide[0], small_slide[1], mpp, OUTLINES, outlines)
        made.append((store, outlines))
    return made


def test_sizes_by_hand(halved):
    whole, half = (PatchStore(*slide) for slide in halved)
    own = typical_size.outlined_um(whole)
    widths = [2 * np.sqrt(outline.polygon.area / np.pi) for outline in whole.outlines]
    assert own == pytest.approx(typical_size.typical_um(widths)) and own > np.median(widths)
    assert typical_size.outlined_um(half) == pytest.approx(own / 2)
    usual = typical_size.usual_um([whole, half])
    assert usual == pytest.approx(0.75 * own) and typical_size.usual_um([whole, half, half]) == pytest.approx(own / 2)
    assert typical_size.enlargement(own, usual) == pytest.approx(0.75)
    assert typical_size.enlargement(own / 10, usual) == 2  # at most
    assert typical_size.enlargement(None, usual) == typical_size.enlargement(own, None) == 1
    assert typical_size.typical_um([100.0] * 4) is None  # too few to tell
    assert typical_size.typical_um([40.0] * 15 + [100.0, 200.0]) == 200  # 24000 of 74000, 34000, 74000


def areas(data: RandomWindows, which: int) -> float:
    """Mean share of a window that glomeruli of one of two slides take."""
    data.weights = np.eye(2)[which]
    return np.mean([label.mean() for _, label in (data[index] for index in range(200))])


def test_training_windows_show_all_slides_glomeruli_alike(halved):
    alike = RandomWindows(halved, 96, 200, WINDOWS | {"same_size": True}, 0)
    assert areas(alike, 0) == pytest.approx(areas(alike, 1), rel=0.1)
    different = RandomWindows(halved, 96, 200, WINDOWS | {"same_size": False}, 0)
    assert different.usual_um is None and areas(different, 0) > 2 * areas(different, 1)


def test_val_windows_are_enlarged_with_their_labels(halved):
    """They show as many glomeruli, as much larger; a picture of its own labels stays so, without half a pixel's shift."""
    own = typical_size.outlined_um(PatchStore(*halved[0]))
    as_it_is = sum(label.sum() for _, label in GridWindows([halved[0]]))
    for enlarged in (0.6, 1.37, 2):
        windows = GridWindows([halved[0]], usual_um=enlarged * own)
        for store, *_ in windows.items:
            store.window = lambda *place, store=store: (
                np.repeat(store.label_window(*place)[..., None] > 0, 3, 2) * np.uint8(200)
            )
        images, labels = (np.stack(part) for part in zip(*windows, strict=True))
        assert images.shape[1:] == (128, 128, 3) and labels.shape[1:] == (128, 128)
        assert labels.sum() == pytest.approx(enlarged**2 * as_it_is, rel=0.03)
        whole = [each for each in range(len(labels)) if 500 < labels[each].sum() < 9000]
        for mask in zip(images[whole, ..., 0] > 100, labels[whole] > 0, strict=True):
            middles = [np.array(np.nonzero(each)).mean(1) for each in mask]
            assert middles[0] == pytest.approx(middles[1], abs=0.2)


def test_places_of_the_second_look_show_all_slides_glomeruli_alike(halved, small_slide):
    """As large on both slides, and darker than the tissue around, as glomeruli are."""
    usual = typical_size.outlined_um(PatchStore(*halved[0]))
    facts = {"mpp": 2.0, "normalise": False, "usual_um": 0.8 * usual}
    settings = {"zoom": 2, "window_px": 64, "batch": 4, "seed": 0}
    shares = []
    for slide, name in zip(halved, ("at 1.0", "at 0.5"), strict=True):
        found = places.find_places([slide], {name: small_slide[0]}, Darkness(), facts, settings, CPU)
        outlined = [place for place in found if place.kind.startswith("grade")]
        for place in outlined:
            inside = place.labels > 0
            around = (cv2.dilate(place.labels, np.ones((15, 15))) > 0) & ~inside
            assert inside[64, 64] and place.image[inside].mean() < place.image[around].mean()
        shares.append(np.mean([(place.labels > 0).mean() for place in outlined]))
    assert shares[0] == pytest.approx(shares[1], rel=0.03)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """A function that detects: eight glomeruli of 96 um and three specks of 44 um where the slide's mpp is 2."""
    image = np.full((1200, 1200, 3), 255, np.uint8)
    image[50:1000, 50:1050] = 215, 150, 190
    middles = [(x, y) for x in (150, 400, 650, 900) for y in (200, 700)]
    for x, y in middles:
        cv2.circle(image, (x, y), 24, (90, 40, 110), -1)
    for x in (150, 500, 850):
        cv2.circle(image, (x, 450), 11, (90, 40, 110), -1)
    tifffile.imwrite(tmp_path / "s.tif", image, tile=(256, 256), compression="zlib", photometric="rgb")
    monkeypatch.setattr(detection, "load_second_look", lambda *_: None)

    def detect(model: torch.nn.Module, mpp: float, usual_um: float | None, **settings):
        store = tmp_path / f"{mpp}.zarr.zip"
        tile_slide("s", tmp_path / "s.tif", mpp, TILING | {"mpp": 4.0}, store)
        facts = {"mpp": 4.0, "normalise": False, "segmenter": "unet", "usual_um": usual_um}
        monkeypatch.setattr(detection, "load_segmenter", lambda *_: (model, facts))
        targets = (tmp_path / f"out.{end}" for end in ("zarr.zip", "geojson", "csv"))
        settings = SETTINGS | {"min_diameter_um": 20, "min_relative_diameter": 0} | settings
        table = detection.detect_glomeruli(store, tmp_path / "s.tif", tmp_path, settings, *targets)
        return table.iloc[np.lexsort(table[["centroid_x_px", "centroid_y_px"]].round(-2).to_numpy().T)]

    return detect


def test_a_slide_with_another_mpp_has_the_same_glomeruli(found):
    """The segmenter cannot see the specks: no more where the mpp is twice too large."""
    assert [len(found(Coarse(), mpp, None)) for mpp in (2.0, 4.0)] == [8, 11]
    one, other = (found(Coarse(), mpp, 100.0) for mpp in (2.0, 4.0))
    assert len(one) == len(other) == 8
    for column in ("centroid_x_px", "centroid_y_px"):
        assert other[column].to_numpy() == pytest.approx(one[column].to_numpy(), abs=2)
    width = "equivalent_diameter_um"
    assert other[width].to_numpy() == pytest.approx(2 * one[width].to_numpy(), rel=0.15)
    assert one[width].to_numpy() == pytest.approx(np.full(8, 96), rel=0.08)  # as the slide says


def test_what_is_small_beside_the_slides_glomeruli_is_none(found):
    """Specks of 0.46 of their width, whatever the slide says its mpp is; where no size is told, the limit in um alone counts."""
    for mpp in (2.0, 4.0):
        assert len(found(Darkness(), mpp, 100.0, min_relative_diameter=0.4)) == 11
        assert len(found(Darkness(), mpp, 100.0, min_relative_diameter=0.52)) == 8
        assert len(found(Darkness(), mpp, None, min_relative_diameter=0.52)) == 11
    assert len(found(Darkness(), 2.0, 100.0, min_relative_diameter=0.4, min_diameter_um=60)) == 8


def test_a_slide_that_differs_too_much_is_named(small_store, caplog):
    store = PatchStore(small_store)
    facts = {"mpp": store.mpp, "segmenter": "unet", "usual_um": 3000.0}
    assert detection.find_size(Darkness(), facts, store, SETTINGS | {"threshold": 0.3}, CPU)[1] == 2
    assert "check its mpp" in caplog.text and "slide small" in caplog.text


def test_too_few_glomeruli_enlarge_nothing(small_store):
    store = PatchStore(small_store)
    facts = {"mpp": store.mpp, "segmenter": "unet", "usual_um": 500.0}
    strict = SETTINGS | {"min_diameter_um": 1e4}
    assert detection.find_size(Darkness(), facts, store, strict, CPU) == (None, 1)
    assert detection.find_size(Darkness(), facts | {"usual_um": None}, store, SETTINGS, CPU) == (None, 1)
