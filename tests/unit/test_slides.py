"""Slides: every file that users have opens, pixels lie where they should, mpp is never guessed, damage is never silent."""

import logging
import shutil

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from conftest import TILING
from PIL import Image
from scipy import ndimage

from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.patches import PatchStore
from glomerulearn.readers.openslide_reader import OpenSlideReader
from glomerulearn.slides import open_slide
from glomerulearn.tiling import tile_slide

NATIVE = "native JPEG tiles"


def reference(path):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def whole(slide):
    return slide.read(0, 0, slide.width_px, slide.height_px, slide.mpp)


# pixels


def test_native_tiles_are_bit_exact_on_a_scanner_file(shared):
    path = shared / "slides-real" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        assert slide.reader.name == NATIVE and slide.mpp == pytest.approx(0.499) and slide.mpp_origin == "metadata"
        expected = reference(path)
        assert np.array_equal(whole(slide), expected)
        assert np.array_equal(slide.read(301, 205, 300, 200, slide.mpp), expected[205:405, 301:601])


def test_native_tiles_are_bit_exact_on_kidneys(shared):
    paths = sorted((shared / "kidney-mini" / "slides").glob("*.svs"))
    assert len(paths) == 14
    for path in paths:
        with open_slide(path) as slide:
            assert slide.reader.name == NATIVE, path.name
            assert np.array_equal(whole(slide), reference(path)), path.name


def test_jpeg2000_is_left_to_openslide(shared):
    path = shared / "slides-real" / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(path, 0.25) as slide:
        assert slide.reader.name == "openslide" and np.array_equal(whole(slide), reference(path))


def test_other_pixels_than_openslides_are_not_used(small_slide, monkeypatch, caplog):
    true = OpenSlideReader.region

    def shifted(self, level, x, y, *size):
        return true(self, level, x + 1, y, *size)

    monkeypatch.setattr(OpenSlideReader, "region", shifted)
    with caplog.at_level(logging.INFO), open_slide(small_slide[0]) as slide:
        assert slide.reader.name == "openslide"
    assert "read through OpenSlide (pixels of level 0" in caplog.text


def test_reducing_is_averaging(small_slide):
    """By 4: the mean of 4 x 4 pixels, exactly. By 2.7 from a fraction of a pixel: the mean of areas."""
    with open_slide(small_slide[0]) as slide:
        full = whole(slide).astype(np.float64)
        slide.reader.sizes = slide.reader.sizes[:1]  # from level 0
        reduced = slide.read(16, 8, 60, 50, 4.0)
        fractional = slide.read(100.3, 200.6, 64, 48, 2.7)
    means = full[8:208, 16:256].reshape(50, 4, 60, 4, 3).mean((1, 3))
    assert np.abs(reduced - means).max() <= 0.5
    sums = np.pad(full.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    places = np.meshgrid(200.6 + 2.7 * np.arange(49), 100.3 + 2.7 * np.arange(65), indexing="ij")
    at = np.stack([ndimage.map_coordinates(sums[..., channel], places, order=1) for channel in range(3)], axis=2)
    areas = (at[1:, 1:] - at[:-1, 1:] - at[1:, :-1] + at[:-1, :-1]) / 2.7**2
    assert np.abs(fractional - areas).max() <= 0.51


def test_reduced_regions_join_and_do_not_shift(small_slide):
    with open_slide(small_slide[0]) as slide:
        full = slide.read(0, 0, 300, 225, 4.0)
        left, right = slide.read(0, 0, 150, 225, 4.0), slide.read(600, 0, 150, 225, 4.0)
        level0 = whole(slide).astype(float)
    assert np.abs(np.hstack([left, right]).astype(int) - full).max() <= 1
    means = level0.reshape(225, 4, 300, 4, 3).mean((1, 3))
    errors = {
        shift: np.abs(np.roll(means, shift, (0, 1))[5:-5, 5:-5] - full[5:-5, 5:-5]).mean()
        for shift in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    }
    here = errors.pop((0, 0))
    assert here < 0.6 * min(errors.values())


def test_enlarging_does_not_shift(small_slide):
    with open_slide(small_slide[0]) as slide:
        fine = slide.read(100, 100, 300, 300, 1 / 3)
        assert np.abs(fine[1::3, 1::3].astype(int) - slide.read(100, 100, 100, 100, 1.0)).max() <= 1


def test_a_slightly_finer_mpp_is_no_shift(shared):
    """0.499 um read at 0.4985: the box is as large as the image, and yet no copy of it."""
    with open_slide(shared / "slides-real" / "CMU-1-Small-Region.svs") as slide:
        same = slide.read(600, 600, 512, 512, slide.mpp).astype(int)
        for mpp in (0.4985, 0.4975, 0.4965):
            near = slide.read(600, 600, 512, 512, mpp)
            errors = [
                np.abs(np.roll(near, shift, (0, 1))[8:64, 8:64] - same[8:64, 8:64]).mean() for shift in (-1, 0, 1)
            ]
            assert errors[1] < min(errors[0], errors[2])


def test_outside_the_slide_is_white(small_slide):
    with open_slide(small_slide[0]) as slide:
        assert (slide.read(-500, -500, 200, 200, 1.0) == 255).all()
        assert (slide.read(5000, 5000, 200, 200, 4.0) == 255).all()
        assert (slide.read(1205, 0, 512, 512, 1.0) == 255).all()


def test_overview_is_the_slide(small_slide):
    with open_slide(small_slide[0]) as slide:
        image, unreadable = slide.overview(16.0)
        slide.reader.sizes = slide.reader.sizes[:1]  # a slide of one level is reduced while it is decoded
        single, _ = slide.overview(16.0)
        expected = slide.read(0, 0, *slide.size_at(16.0), 16.0)
    assert not unreadable.any() and image.shape == single.shape == expected.shape
    assert np.abs(single.astype(int) - expected).mean() < 1
    errors = [np.abs(np.roll(image, shift, 1).astype(int) - expected)[:, 2:-2].mean() for shift in (-1, 0, 1)]
    assert errors[1] < 8 and errors[1] < min(errors[0], errors[2]) / 2  # a level of 75 x 56 px, compressed once more


def test_scanned_bounds_are_the_image(small_slide, monkeypatch):
    """MIRAX states which part was scanned; QuPath's coordinates begin there."""
    bounds = {"x": 200, "y": 100, "width": 600, "height": 500}

    class Bounded(openslide.OpenSlide):
        @property
        def properties(self):
            stated = {f"openslide.bounds-{key}": str(value) for key, value in bounds.items()}
            return {**super().properties, "openslide.vendor": "mirax", **stated}

    expected = reference(small_slide[0])[100:600, 200:800]
    monkeypatch.setattr(openslide, "OpenSlide", Bounded)
    with open_slide(small_slide[0]) as slide:
        assert (slide.width_px, slide.height_px) == (600, 500) and slide.reader.vendor == "mirax"
        assert np.array_equal(whole(slide), expected)
        assert (slide.read(-50, -50, 40, 40, 1.0) == 255).all() and (slide.read(600, 0, 40, 40, 1.0) == 255).all()
        assert "600 x 500 px at (200, 100)" in slide.reader.notes[0]


def test_tiles_never_scanned_are_background(small_slide, tmp_path):
    """A sparse TIFF lists them with offset and length 0."""
    path = edited(small_slide[0], tmp_path, lambda page, tile: {"offset": 0, "length": 0})
    with open_slide(path) as slide:
        assert slide.reader.name == NATIVE
        x, y = middle_tile(small_slide[0])[1:]
        assert (slide.read(x, y, 256, 256, 1.0) == 255).all()


# mpp


def test_missing_mpp_names_slide_and_column(shared):
    path = shared / "slides-real" / "TCGA-CR-7395-01A-01-TS1.svs"
    with pytest.raises(InputError, match=r"TCGA-CR-7395-01A-01-TS1\.svs.*column `mpp`"):
        open_slide(path)
    with open_slide(path, 0.25) as slide:
        assert slide.mpp == 0.25 and slide.mpp_origin == "sheet"


def test_conflicting_mpp_warns_once(small_slide, caplog):
    with caplog.at_level(logging.WARNING), open_slide(small_slide[0], 1.2) as slide:
        assert slide.mpp == 1.2
    assert caplog.text.count("sheet says mpp 1.2, the file says 1") == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING), open_slide(small_slide[0], 1.04):
        assert not caplog.text


def test_dpi_is_no_mpp(tmp_path):
    image = np.full((512, 512, 3), 200, np.uint8)
    path = tmp_path / "dpi.tif"
    tifffile.imwrite(path, image, tile=(256, 256), compression="jpeg", resolution=(72, 72), resolutionunit="INCH")
    with pytest.raises(InputError, match=r"dpi\.tif: the file states no resolution.*352.*no microscope.*column `mpp`"):
        open_slide(path)


# plain images


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("rgb.png", ""), ("rgb.jpg", ""), ("rgb.tif", ""), ("planar.tif", ""), ("cmyk.tif", "CMYK"),
        ("16bit.tif", "divided by 257"), ("12bit.tif", "divided by 16"), ("grey.png", "grey"), ("16grey.png", "grey"),
        ("alpha.png", "transparent"), ("palette.png", ""), ("cmyk.jpg", "CMYK"), ("12bit.png", "divided by 16"),
        ("tiled16.tif", "divided by 257"), ("extra.tif", "fourth channel"),
    ],
)  # fmt: skip
def test_plain_images(tmp_path, name, note):
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (20, 30, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC)
    grey = rgb[..., :1].repeat(3, axis=2)
    path = tmp_path / name
    alpha = np.dstack([rgb, np.where(np.arange(300) < 100, 0, 255).astype(np.uint8)[None].repeat(200, 0)])
    quantised = Image.fromarray(rgb).quantize(64)
    cmyk = np.dstack([255 - rgb, np.zeros(rgb.shape[:2], np.uint8)])
    {
        "rgb.png": lambda: Image.fromarray(rgb).save(path),
        "rgb.jpg": lambda: Image.fromarray(rgb).save(path, quality=98, subsampling=0),
        "rgb.tif": lambda: tifffile.imwrite(path, rgb, compression="lzw", photometric="rgb"),
        "planar.tif": lambda: tifffile.imwrite(
            path, np.moveaxis(rgb, -1, 0), planarconfig="separate", photometric="rgb"
        ),
        "cmyk.tif": lambda: tifffile.imwrite(path, cmyk, photometric="separated"),
        "16bit.tif": lambda: tifffile.imwrite(path, rgb.astype(np.uint16) * 257, photometric="rgb"),
        "12bit.tif": lambda: tifffile.imwrite(path, rgb.astype(np.uint16) * 16, photometric="rgb"),
        "grey.png": lambda: Image.fromarray(rgb[..., 0]).save(path),
        "16grey.png": lambda: Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(path),
        "alpha.png": lambda: Image.fromarray(alpha).save(path),
        "palette.png": lambda: quantised.save(path),
        "12bit.png": lambda: cv2.imwrite(str(path), rgb[..., ::-1].astype(np.uint16) * 16),
        "tiled16.tif": lambda: tifffile.imwrite(path, rgb.astype(np.uint16) * 257, photometric="rgb", tile=(64, 64)),
        "extra.tif": lambda: tifffile.imwrite(
            path, np.dstack([rgb, rgb[..., :1] * 0]), photometric="rgb", extrasamples=["unspecified"]
        ),
        "cmyk.jpg": lambda: Image.fromarray(cmyk, "CMYK").save(path, quality=98, subsampling=0),
    }[name]()
    with pytest.raises(InputError, match=r"column `mpp`"):
        open_slide(path)
    with open_slide(path, 0.5) as slide:
        found, notes = whole(slide), " ".join(slide.reader.notes)
        assert slide.read(-10, -10, 5, 5, 0.5).min() == 255
    assert note in notes and found.dtype == np.uint8
    expected = {"grey.png": grey, "16grey.png": grey, "palette.png": np.asarray(quantised.convert("RGB"))}.get(
        name, rgb
    )
    if name == "alpha.png":
        expected = np.where(alpha[..., 3:] == 0, 255, rgb)
    assert np.abs(found.astype(int) - expected).mean() < (3 if name.endswith("jpg") else 0.01)


def test_a_plain_image_goes_through_tiling(small_slide, tmp_path):
    with open_slide(small_slide[0]) as slide:
        Image.fromarray(whole(slide)).save(tmp_path / "plain.png")
    row = tile_slide("p", tmp_path / "plain.png", 1.0, TILING, tmp_path / "p.zarr.zip")
    assert (row["status"], row["reader"], row["mpp_origin"]) == ("ok", "pillow", "sheet")


# damage


def middle_tile(path):
    """Index and place of a tile of level 0 that holds tissue."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        index = int(np.argmax(page.databytecounts))
        columns = -(-page.imagewidth // page.tilewidth)
        return index, index % columns * page.tilewidth, index // columns * page.tilelength


def edited(path, folder, change, level=0):
    """A copy of a slide with one tile changed: its bytes, its length, or where it lies."""
    copy = shutil.copy(path, folder / "damaged.svs")
    with tifffile.TiffFile(copy) as tiff:
        page, index = tiff.pages[level], middle_tile(copy)[0] if level == 0 else 0
        place, count = page.dataoffsets[index], page.databytecounts[index]
        with copy.open("rb") as file:
            file.seek(place)
            tile = file.read(count)
        new = change(page, tile)
        size = {4: "<I", 16: "<Q", 3: "<H"}
        with copy.open("r+b") as file:
            if "bytes" in new:
                file.seek(place)
                file.write(new["bytes"])
            for key, code in (("offset", 324), ("length", 325)):
                if key in new:
                    import struct

                    layout = size[page.tags[code].dtype]
                    file.seek(page.tags[code].valueoffset + index * struct.calcsize(layout))
                    file.write(struct.pack(layout, new[key]))
    return copy


def flipped(page, tile):
    middle = len(tile) // 2
    return {"bytes": tile[:middle] + bytes(byte ^ 0xFF for byte in tile[middle : middle + 60]) + tile[middle + 60 :]}


DAMAGE = {
    "zeroed": lambda page, tile: {"bytes": bytes(len(tile))},
    "half": lambda page, tile: {"bytes": tile[: len(tile) // 2] + bytes(len(tile) - len(tile) // 2)},
    "cut": lambda page, tile: {"length": len(tile) // 2},
    "flipped": flipped,
    "empty": lambda page, tile: {"length": 0},
    "elsewhere": lambda page, tile: {"offset": 2**31},
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("native", [True, False])
def test_a_damaged_tile_costs_its_patches_only(small_slide, tmp_path, damage, native, monkeypatch):
    if not native:
        if damage == "empty":
            pytest.skip(
                "OpenSlide takes a tile of no bytes for one that was never scanned, and leaves a hole in every level"
            )
        monkeypatch.setattr("glomerulearn.readers.jpeg_tiles.VENDORS", ())
    path = edited(small_slide[0], tmp_path, DAMAGE[damage])
    settings = TILING | {"mpp": 1.0, "max_damaged": 0.5}
    row = tile_slide("d", path, None, settings, tmp_path / "d.zarr.zip")
    assert row["status"] == "ok" and row["reader"] == (NATIVE if native else "openslide")
    x, y = middle_tile(small_slide[0])[1:]
    hit = {(x // 128 + i, y // 128 + j) for i in (0, 1) for j in (0, 1)}
    store = PatchStore(tmp_path / "d.zarr.zip")
    whole_store = tmp_path / "w.zarr.zip"
    tile_slide("w", small_slide[0], None, settings, whole_store)
    good = PatchStore(whole_store)
    lost = set(map(tuple, good.grid.tolist())) - set(map(tuple, store.grid.tolist()))
    assert lost <= hit and len(lost) == row["n_damaged"] > 0 and f"damaged: {row['n_damaged']}" in row["skipped"]
    # half a tile is lost where OpenSlide paints what it can
    assert f"{x},{y}" in row["damaged_at_px"] or (not native and damage in ("half", "flipped", "cut"))
    for column, line in [cell * 128 for cell in store.grid if tuple(cell.tolist()) not in hit][::4]:
        assert np.array_equal(store.window(int(column), int(line), 128), good.window(int(column), int(line), 128))
    row = tile_slide("d", path, None, settings | {"max_damaged": 0.0}, tmp_path / "e.zarr.zip")
    assert (
        row["status"] == "failed" and "`tiling: max_damaged: 0.0`" in row["reason"] and "damaged.svs" in row["reason"]
    )
    assert row["reader"] and row["mpp_level0"] == 1.0  # what is known of it stays known


def test_an_overview_that_cannot_be_read_costs_nothing(small_slide, tmp_path):
    path = edited(small_slide[0], tmp_path, DAMAGE["half"], level=2)
    row = tile_slide("d", path, None, TILING, tmp_path / "d.zarr.zip")
    assert row["status"] == "ok" and row["n_patches"] == row["n_grid"] and row["n_damaged"] == 0


def test_damage_in_an_overview_stays_where_it_is(shared, tmp_path):
    path = edited(shared / "slides-real" / "CMU-1-Small-Region.svs", tmp_path, DAMAGE["zeroed"])
    with open_slide(path) as slide, open_slide(shared / "slides-real" / "CMU-1-Small-Region.svs") as good:
        (image, unreadable), (expected, _) = slide.overview(16.0), good.overview(16.0)
    assert 0 < unreadable.mean() < 0.1 and np.array_equal(image[~unreadable], expected[~unreadable])


def test_damage_in_a_real_slide_is_seen(shared, tmp_path):
    for damage in (
        "zeroed",
        "half",
        "cut",
        "flipped",
        "empty",
    ):  # one of its only level elsewhere, and it does not open
        change = DAMAGE[damage]
        path = edited(shared / "slides-real" / "CMU-1-Small-Region.svs", tmp_path, change)
        x, y = middle_tile(shared / "slides-real" / "CMU-1-Small-Region.svs")[1:]
        with open_slide(path) as slide:
            assert slide.reader.name == NATIVE
            with pytest.raises(DamagedRegion, match=r"damaged\.svs: level 0, tile at column \d+, row \d+"):
                slide.read(x, y, 100, 100, slide.mpp)
            assert slide.read(0, 0, 100, 100, slide.mpp).any(), damage


@pytest.mark.parametrize("content", [b"", b"this is no slide", b"\x89PNG\r\n\x1a\nand no more", b"II*\0" + bytes(40)])
@pytest.mark.parametrize("suffix", ["svs", "tif"])
def test_what_is_no_slide_is_named(tmp_path, content, suffix):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.{suffix}: OpenSlide cannot open.*{len(content)} bytes"):
        open_slide(path)
    with pytest.raises(InputError, match=r"gone\.svs.*column `path`"):
        open_slide(tmp_path / "gone.svs")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("name", ["slides-real/CMU-1-Small-Region.svs", "kidney-mini/slides/HE_I_2_S_1.svs"])
@pytest.mark.parametrize("suffix", ["svs", "tif"])
def test_a_truncated_slide_is_no_plain_image(shared, tmp_path, name, share, suffix):
    whole = (shared / name).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    row = tile_slide("cut", path, 1.0, TILING, tmp_path / "c.zarr.zip")
    assert row["status"] == "failed" and f"cut.{suffix}" in row["reason"]


def test_a_mirax_file_without_its_folder_is_no_picture(tmp_path):
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.mrxs")
    with pytest.raises(InputError, match=r"a\.mrxs: OpenSlide cannot open.*with the folder of the same name"):
        open_slide(tmp_path / "a.mrxs", 0.5)


def test_a_damaged_plain_jpeg_is_named(small_slide, tmp_path):
    with open_slide(small_slide[0]) as slide:
        Image.fromarray(whole(slide)).save(tmp_path / "a.jpg", quality=85)
    content = (tmp_path / "a.jpg").read_bytes()
    middle = len(content) // 2
    (tmp_path / "a.jpg").write_bytes(
        content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 400]) + content[middle + 400 :]
    )
    with pytest.raises(InputError, match=r"a\.jpg.*nor is it a plain image"):
        open_slide(tmp_path / "a.jpg", 1.0)
