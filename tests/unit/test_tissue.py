"""Tissue is found whatever the stain, down to thin cores; glass, shading and black padding are none."""

import cv2
import numpy as np
import pytest

from glomerulearn.slides import open_slide
from glomerulearn.tissue import MPP, tissue_mask

# mean colours at 16 um per pixel, on glass of (243, 243, 241): pale ends of what laboratories send
STAINS = {
    "H&E": (222, 180, 205),
    "PAS": (222, 190, 214),
    "silver": (205, 206, 196),
    "trichrome": (180, 195, 222),
    "pale silver": (215, 214, 206),
}


def scene(colour, width_px):
    """Glass with uneven light and a needle core of some pixels' width; returns image and truth."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:300, :500]
    truth = np.abs(rows - 150 - 25 * np.sin(columns / 60)) < width_px / 2
    truth &= (columns > 40) & (columns < 460)
    light = 1 - 0.02 * columns / 500
    texture = cv2.GaussianBlur(rng.normal(0, 1, (300, 500)).astype(np.float32), (0, 0), 1.2)
    image = np.where(truth[..., None], np.array(colour) + 14 * texture[..., None], np.array((243, 243, 241)))
    image = image * light[..., None] + rng.normal(0, 1.0, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("width_um", [150, 400, 1200])
def test_needle_cores_of_every_stain(stain, width_um):
    image, truth = scene(STAINS[stain], width_um / MPP)
    found = tissue_mask(image)
    inside = cv2.erode(truth.astype(np.uint8), np.ones((3, 3))) > 0
    away = cv2.dilate(truth.astype(np.uint8), np.ones((7, 7))) == 0
    assert found[inside].mean() > 0.97 and found[away].mean() < 0.005


def test_a_slide_full_of_tissue_is_tissue():
    image, _ = scene(STAINS["PAS"], 10_000)
    assert tissue_mask(image[:, 50:450]).mean() > 0.97


def test_black_padding_is_no_tissue():
    image, truth = scene(STAINS["H&E"], 40)
    image[:100], truth[:100] = 0, False
    assert tissue_mask(image)[:97].mean() == 0 and tissue_mask(image)[103:][truth[103:]].mean() > 0.9


def test_every_glomerulus_of_kidney_mini_lies_on_tissue(shared):
    """H&E and PAS of four institutions: what pathologists outlined is found as tissue, and glass is left out."""
    import json

    from shapely.geometry import shape

    missed = total = 0
    for path in sorted((shared / "kidney-mini" / "slides").glob("*.svs")):
        with open_slide(path) as slide:
            image, _ = slide.overview(MPP)
            mask, mpp = tissue_mask(image), slide.mpp
        assert 0.1 < mask.mean() < 0.99, path.name
        features = json.loads((shared / "kidney-mini" / "annotations" / f"{path.stem}.geojson").read_text())["features"]
        for feature in features:
            x, y = (int(place * mpp / MPP) for place in shape(feature["geometry"]).centroid.coords[0])
            total += 1
            missed += not mask[y, x]
    assert total == 788 and missed <= 4
