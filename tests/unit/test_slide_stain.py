"""One stain for all slides: two laboratories' pictures of the same tissue become alike, and glass stays glass."""

import cv2
import numpy as np
import pytest

from glomerulearn.patches import PatchStore
from glomerulearn.slide_stain import density, lookup


def tissue(seed=0):
    """Purple nuclei on pink: uint8 (128, 128, 3)."""
    rng = np.random.default_rng(seed)
    nuclei = cv2.GaussianBlur(rng.normal(0, 1, (128, 128)), (0, 0), 2)
    nuclei = np.clip(nuclei / nuclei.std(), 0, 2)[..., None]
    optical = np.array([0.1, 0.3, 0.15]) + nuclei * np.array([0.2, 0.2, 0.05])
    return np.round(256 * 10**-optical - 1).astype(np.uint8)


def restained(image, strength):
    """Another laboratory: every dye weaker or stronger."""
    optical = -np.log10((image.astype(float) + 1) / 256)
    return np.clip(np.round(256 * 10 ** -(optical * strength) - 1), 0, 255).astype(np.uint8)


def test_two_laboratories_become_alike():
    image = tissue()
    pale, strong = restained(image, (0.6, 0.5, 0.7)), restained(image, (1.3, 1.4, 1.2))
    before = np.abs(pale.astype(float) - strong).mean()
    pale, strong = (cv2.LUT(each, lookup(*density(each))) for each in (pale, strong))
    assert np.abs(pale.astype(float) - strong).mean() < 0.2 * before and before > 40


def test_glass_stays_glass_and_order_is_kept():
    image = tissue()
    image[:20] = 255
    image[20:40] = 240
    table = lookup(*density(image))
    assert table.shape == (256, 1, 3) and (np.diff(table[:, 0].astype(int), axis=0) >= 0).all()
    changed = cv2.LUT(image, table)
    assert (changed[:20] == 255).all() and np.abs(changed[20:40].astype(int) - 240).max() <= 2


def test_density_by_hand():
    image = np.full((1, 2, 3), 255, np.uint8)
    image[0, 0] = 25, 127, 255  # optical densities log10(256 / 26), log10(256 / 128), 0; the other pixel is glass
    mean, std = density(image)
    assert mean == pytest.approx([0.9933, 0.3010, 0.0], abs=1e-4) and std == pytest.approx([0, 0, 0])
    assert np.array_equal(density(np.full((2, 2, 3), 255, np.uint8))[0], np.zeros(3))


def test_a_store_normalises_when_asked(small_store):
    plain, normalised = PatchStore(small_store), PatchStore(small_store, normalise=True)
    place = 0, 0, *plain.canvas
    expected = cv2.LUT(plain.window(*place), lookup(*plain.density))
    assert np.array_equal(normalised.window(*place), expected) and not np.array_equal(expected, plain.window(*place))
    assert np.array_equal(plain.label_window(*place), normalised.label_window(*place))
