"""The second look: where it is taken, that it lies where the first did, what it is trained on, and that it is kept."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from test_training import NETWORKS, SETTINGS

from glomerulearn import inference
from glomerulearn import places as places_module
from glomerulearn.detection import detect_glomeruli
from glomerulearn.errors import DamagedRegion
from glomerulearn.models import load_second_look, load_segmenter
from glomerulearn.patches import PatchStore
from glomerulearn.places import MISTAKE, TISSUE, Place
from glomerulearn.pretrained import take_segmenter
from glomerulearn.sampling import glomerulus_centres
from glomerulearn.second_look import candidates, look_again, read_window, window_corners
from glomerulearn.second_look_training import PlaceWindows, train_second_look
from glomerulearn.slides import open_slide
from glomerulearn.training import train_segmenter

CPU = torch.device("cpu")
LOOK = {"zoom": 2, "window_px": 64, "epochs": 2, "windows_per_epoch": 32, "learning_rate": 0.002}
DETECTION = {
    "window_px": 64, "overlap_px": 16, "batch": 4, "zooms": [1], "flips": False, "threshold": 0.5, "seed_threshold": 0.6,
    "min_diameter_um": 20.0, "min_relative_diameter": 0.0, "min_solidity": 0.5, "split_waist": 0.6,
}  # fmt: skip


class Darkness(torch.nn.Module):
    """Says glomerulus as far as a pixel is dark."""

    def forward(self, images):
        dark = -images.mean(1, keepdim=True) * 6
        return torch.cat([-dark / 2, dark / 2], 1)


@pytest.fixture(scope="module")
def trained(small, small_slide, tmp_path_factory):
    """A U-Net that looks twice, trained on the small slide: folders of the first look and of both."""
    folder = tmp_path_factory.mktemp("trained")
    settings = SETTINGS | {"network": NETWORKS["unet"]}
    train_segmenter("unet", [small], [small], settings, folder / "first")
    scans = {"small": small_slide[0]}
    train_second_look(folder / "first", [small], [small], scans, settings | LOOK, folder / "both", licence="CC0")
    return folder / "first", folder / "both"


def test_only_what_might_be_a_glomerulus_is_looked_at_again():
    probability = np.zeros((200, 200), np.uint8)
    probability[20:50, 20:50] = 90  # a third sure, 120 um
    probability[100:130, 100:130] = 20  # hardly
    probability[160:166, 160:166] = 255  # 24 um
    assert [region.bbox for region in candidates(probability, 4.0)] == [(20, 20, 50, 50)]


@pytest.mark.parametrize("box", [(10, 20, 40, 60), (0, 0, 300, 90), (5, 7, 400, 380)])
def test_windows_cover_a_region_with_their_middles(box):
    seen = np.zeros((500, 500), bool)
    for left, top in window_corners(box, 96):
        rows, columns = (slice(max(start + 9, 0), max(start + 87, 0)) for start in (top, left))
        seen[rows, columns] = True
    assert seen[box[0] : box[2], box[1] : box[3]].all()
    assert len(list(window_corners((10, 10, 80, 80), 96))) == 1


@pytest.mark.parametrize(("zoom", "enlarged"), [(2, 1), (4, 1), (2, 0.7), (2, 1.37)])
def test_it_lies_where_the_first_look_lay(zoom, enlarged, small, small_slide):
    """Darkness, seen closer, is the patches' darkness, not shifted by a pixel; elsewhere the first look stands."""
    store = PatchStore(*small)
    image = store.window(0, 0, *store.canvas).astype(np.float32)
    dark = 1 / (1 + np.exp((image.mean(2) / 127.5 - 1) * 6))
    first = np.where(store.truth() > 0, 128, 10).astype(np.uint8)  # as likely as not where glomeruli are
    with open_slide(small_slide[0]) as slide:
        window = read_window(slide, store, 20, 30, 64, zoom).reshape(64 // zoom, zoom, 64 // zoom, zoom, 3).mean((1, 3))
        assert np.abs(window - image[30 : 30 + 64 // zoom, 20 : 20 + 64 // zoom]).max() < 2
        facts = {"zoom": zoom, "window_px": 64 * zoom}
        both = look_again(Darkness(), facts, first, store, slide, DETECTION, CPU, enlarged=enlarged)
    inside = store.truth() > 0
    odds = np.log(dark / (1 - dark)) / 2
    expected = 255 / (1 + np.exp(-odds))
    difference = (both - expected)[inside]
    # pixels that do not fall together share out the grain
    assert np.abs(difference).mean() < (4 if enlarged == 1 else 6) and abs(difference.mean()) < 2
    moved = [np.abs(both - np.roll(expected, step, axis))[inside].mean() for axis in (0, 1) for step in (-1, 1)]
    assert np.abs(difference).mean() < min(moved)
    far = np.ones_like(inside)
    reach = 64 if enlarged >= 1 else 96  # windows are wider there
    for region in candidates(first, store.mpp):
        top, left, bottom, right = region.bbox
        far[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = False
    assert (both[far] == first[far]).all()


@pytest.mark.parametrize(("trained_in", "asked"), [("float32", "float32"), ("bfloat16", "auto")])
def test_it_is_taken_in_the_precision_of_training(trained_in, asked, small, small_slide, monkeypatch):
    seen = []
    real = inference.autocast
    monkeypatch.setattr(inference, "autocast", lambda *how: seen.append(how[0]) or real(*how))
    store = PatchStore(*small)
    first = np.where(store.truth() > 0, 128, 0).astype(np.uint8)
    facts = {"zoom": 2, "window_px": 64, "settings": {"precision": trained_in}}
    with open_slide(small_slide[0]) as slide:
        look_again(Darkness(), facts, first, store, slide, DETECTION, CPU)
    assert set(seen) == {asked}


def test_places_stay_within_memory(trained, small, small_slide, monkeypatch):
    """Of each kind so many as fit, and all of them where they do."""
    model, facts = load_segmenter(trained[0])
    settings = SETTINGS | LOOK
    size = 4 * 128**2  # of a place: three colours and a label, two windows wide

    def kinds(most):
        monkeypatch.setattr(places_module, "_MOST_BYTES", most)
        found = places_module.find_places([small], {"small": small_slide[0]}, model, facts, settings, CPU)
        assert all(place.image.nbytes + place.labels.nbytes == size for place in found)
        return Counter(place.kind for place in found)

    everything = kinds(10**9)
    assert everything[TISSUE] == 40 and kinds(2 * size) == {kind: min(n, 2) for kind, n in everything.items()}


def test_a_damaged_place_is_left_as_the_first_look_saw_it(small, small_slide, caplog):
    store = PatchStore(*small)
    first = np.where(store.truth() > 0, 128, 0).astype(np.uint8)
    with open_slide(small_slide[0]) as slide:

        class Damaged:
            mpp = slide.mpp

            def read(self, *place):
                raise DamagedRegion("tile 7 cannot be decoded")

        both = look_again(Darkness(), {"zoom": 2, "window_px": 64}, first, store, Damaged(), DETECTION, CPU)
    assert (both == first).all() and "tile 7" in caplog.text


def test_windows_show_every_kind_and_nothing_else():
    """Each label as often, mistakes more often than other tissue, the share of glomeruli as asked."""
    shades = {"normal": 50, "sclerosed": 100, MISTAKE: 150, TISSUE: 200}
    places = [
        Place(kind, np.full((128, 128, 3), shade, np.uint8), np.full((128, 128), shade < 120, np.uint8))
        for kind, shade in shades.items()
        for _ in range(9 if kind == "normal" else 1)
    ]
    still = {
        "flip": False, "rotation": False, "scale": [1, 1], "elastic_px": 0, "stain": 0, "colour": 0, "blur": 0,
    }  # fmt: skip
    settings = {"seed": 0, "windows_per_epoch": 600, "window_px": 64, "glomerulus_share": 0.6, "tell_labels": False}
    data = PlaceWindows(places, settings | {"augmentation": still})
    items = [data[index] for index in range(600)]
    seen = [int(image[32, 32, 0]) for image, _ in items]
    shares = {kind: np.mean(np.array(seen) == shade) for kind, shade in shades.items()}
    for kind, share in {"normal": 0.3, "sclerosed": 0.3, MISTAKE: 0.24, TISSUE: 0.16}.items():
        assert shares[kind] == pytest.approx(share, abs=0.06)
    assert all(label.mean() == (shade < 120) for (_, label), shade in zip(items, seen, strict=True))


def test_places_are_read_where_outlines_lie(small, small_slide):
    """What is drawn over a place is the glomerulus that its image shows: darker than the tissue around."""
    store = PatchStore(*small)
    wanted = [("grade 0", centre) for centre in glomerulus_centres(store)]
    places = places_module._read(store, small_slide[0], wanted, 64, 2)
    assert len(places) == len(store.outlines)
    for place, outline in zip(places, store.outlines, strict=True):
        assert place.image.shape == (128, 128, 3) and place.labels.shape == (128, 128)
        assert place.labels[64, 64] == 1 + store.labels.index(outline.label)
        inside = place.labels > 0
        assert place.image[inside].mean() < place.image[~inside].mean()


def test_both_looks_are_one_model(trained, small_store, small_slide, tmp_path):
    """One file carries both, also to another cohort; the first look is what it was; a slide is looked at twice."""
    first, both = trained
    facts = json.loads((both / "model.json").read_text())
    assert facts["second_look"]["zoom"] == 2 and facts["licence"] == "CC0" and not (both / "resume.pt").exists()
    assert set(facts["second_look"]["places"]) >= {f"grade {grade}" for grade in range(4)} | {TISSUE}
    assert load_second_look(first) is None
    window = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        alone, again = (load_segmenter(folder)[0](window) for folder in (first, both))
        assert torch.equal(alone, again) and not torch.equal(load_second_look(both)(window), alone)
    take_segmenter("unet", str(both / "model.safetensors"), 2.0, tmp_path / "taken")
    assert load_second_look(tmp_path / "taken") is not None
    tables = {
        name: detect_glomeruli(
            small_store, small_slide[0], folder, DETECTION,
            *(tmp_path / f"{name}.{end}" for end in ("zarr.zip", "geojson", "csv")),
        )
        for name, folder in (("alone", first), ("twice", both))
    }  # fmt: skip
    assert len(tables["twice"]) and not tables["alone"]["mean_probability"].equals(tables["twice"]["mean_probability"])


def test_the_second_look_goes_on_where_it_was(trained, small, small_slide, tmp_path, monkeypatch):
    """Interrupted after its first epoch, it ends with the weights of an undisturbed run."""
    settings = SETTINGS | {"network": NETWORKS["unet"]} | LOOK
    task = trained[0], [small], [small], {"small": small_slide[0]}, settings, tmp_path

    def stop(epochs):
        yield epochs[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_second_look(*task, progress=stop)
    asked = []
    train_second_look(*task, progress=lambda epochs: asked.extend(epochs) or asked)
    assert asked == [2]
    window = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        cut, whole = (load_second_look(folder)(window) for folder in (tmp_path, trained[1]))
    assert torch.allclose(cut, whole, atol=1e-4)
