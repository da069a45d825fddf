"""Slides: real scanner files open, mpp is never guessed, pixels lie where they should."""

import logging

import numpy as np
import openslide
import pytest

from glomerulearn.errors import InputError
from glomerulearn.slides import open_slide


def test_level0_pixels_equal_openslide(shared):
    path = shared / "slides-real" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.mpp == pytest.approx(0.499) and slide.mpp_origin == "metadata"
        expected = np.asarray(reference.read_region((301, 205), 0, (300, 200)).convert("RGB"))
        assert np.array_equal(slide.read(301, 205, 300, 200, slide.mpp), expected)


def test_missing_mpp_names_slide_and_column(shared):
    path = shared / "slides-real" / "TCGA-CR-7395-01A-01-TS1.svs"
    with pytest.raises(InputError, match=r"TCGA-CR-7395-01A-01-TS1\.svs.*column `mpp`"):
        open_slide(path)
    with open_slide(path, 0.25) as slide:
        assert slide.mpp == 0.25 and slide.mpp_origin == "sheet"


def test_conflicting_mpp_warns(small_slide, caplog):
    with caplog.at_level(logging.WARNING), open_slide(small_slide[0], 1.2) as slide:
        assert slide.mpp == 1.2
    assert "sheet says mpp 1.2, the file says 1" in caplog.text


@pytest.mark.parametrize("content", [b"", b"this is no slide"])
def test_what_is_no_slide_is_named(tmp_path, content):
    path = tmp_path / "bad.svs"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.svs.*{len(content)} bytes"):
        open_slide(path)
    with pytest.raises(InputError, match=r"gone\.svs.*column `path`"):
        open_slide(tmp_path / "gone.svs")


def test_reduced_regions_join_and_do_not_shift(small_slide):
    with open_slide(small_slide[0]) as slide:
        whole = slide.read(0, 0, 300, 225, 4.0)
        left, right = slide.read(0, 0, 150, 225, 4.0), slide.read(600, 0, 150, 225, 4.0)
        full = slide.read(0, 0, 1200, 900, 1.0).astype(float)
    assert np.abs(np.hstack([left, right]).astype(int) - whole).max() <= 3
    means = full.reshape(225, 4, 300, 4, 3).mean((1, 3))
    errors = {
        shift: np.abs(np.roll(means, shift, (0, 1))[5:-5, 5:-5] - whole[5:-5, 5:-5]).mean()
        for shift in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    }
    here = errors.pop((0, 0))
    assert here < 0.6 * min(errors.values())


def test_outside_the_slide_is_white(small_slide):
    with open_slide(small_slide[0]) as slide:
        assert (slide.read(-500, -500, 200, 200, 1.0) == 255).all()
