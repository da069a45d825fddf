"""What a site adds to every vector is taken out, also of slides that come later."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from glomerulearn.reduction import reduce_embeddings
from glomerulearn.site_effects import SiteEffect


def three_sites(seed):
    """300 vectors (300, 12) of two kinds, in three sites that shift and stretch them: vectors, kind, site."""
    rng = np.random.default_rng(seed)
    kind, site = rng.integers(2, size=300), np.array(["oslo", "york", "bonn"])[rng.integers(3, size=300)]
    clean = rng.normal(size=(300, 12)) + 4 * kind[:, None] * (np.arange(12) < 3)
    shift, stretch = {"oslo": 0.0, "york": 6.0, "bonn": -5.0}, {"oslo": 1.0, "york": 2.0, "bonn": 0.5}
    vectors = np.stack([row * stretch[name] + shift[name] for row, name in zip(clean, site, strict=True)])
    return vectors.astype(np.float32), kind, site


@pytest.mark.parametrize("method", ["centre", "combat"])
def test_site_effect_goes_and_the_kind_stays(method):
    vectors, kind, site = three_sites(0)
    effect = SiteEffect(method).fit(vectors, site)
    clean = effect.transform(vectors, site)
    assert clean.dtype == np.float32 and silhouette_score(vectors, site) > 0.4
    assert abs(silhouette_score(clean, site)) < 0.1 and silhouette_score(clean, kind) > 0.1
    assert np.allclose(clean.mean(0), vectors.mean(0), atol=0.5)  # the cohort as a whole stays where it was
    new, _, sites = three_sites(1)
    assert abs(silhouette_score(effect.transform(new, sites), sites)) < 0.1
    # one at a time or together, a glomerulus goes to the same place
    assert np.allclose(effect.transform(new[:1], sites[:1]), effect.transform(new, sites)[:1], atol=1e-4)


def test_combat_brings_spreads_together():
    vectors, _, site = three_sites(0)

    def ratio(x):
        spread = [x[site == name].std(0).mean() for name in ("york", "bonn")]
        return spread[0] / spread[1]

    clean = SiteEffect("combat").fit(vectors, site).transform(vectors, site)
    assert ratio(vectors) > 3 and ratio(clean) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("method", ["centre", "combat"])
def test_sites_that_are_not_known_stay_as_they_are_and_are_named(method, caplog):
    vectors, _, site = three_sites(0)
    site[:3] = "rare"
    effect = SiteEffect(method).fit(vectors, site)
    for name in ("", "rare", "elsewhere"):
        assert np.array_equal(effect.transform(vectors[:2], [name] * 2), vectors[:2])
        assert f"of sites that are not known well are left as they are: {name or 'unknown'}" in caplog.text
    assert np.array_equal(SiteEffect(method).fit(vectors, ["one"] * 300).transform(vectors, site), vectors)
    assert "fewer than two sites" in caplog.text
    assert np.array_equal(SiteEffect("none").fit(vectors, site).transform(vectors, site), vectors)


def test_reduction_keeps_the_site_effect_for_new_slides(tmp_path):
    import joblib

    vectors, _, site = three_sites(0)
    paths = []
    for name in ("oslo", "york", "bonn"):
        rows = np.flatnonzero(site == name)
        paths.append(tmp_path / f"{name}.npz")
        np.savez(
            paths[-1], glomerulus=[f"{name}-{i}" for i in rows], vectors=vectors[rows], cut=np.zeros(len(rows), bool),
            facts=f'{{"slide": "{name}", "extractor": "x", "weights": "measured", "scale": "kept"}}',
        )  # fmt: skip
    sites = {name: name for name in ("oslo", "york", "bonn")}
    files = tmp_path / "m.joblib", tmp_path / "c.npz"
    reduce_embeddings("pca", paths, {"components": 3}, True, "centre", sites, 0, *files)
    fitted, reduction = np.load(files[1]), joblib.load(files[0])
    assert (
        abs(silhouette_score(fitted["vectors"], fitted["slide"])) < 0.1
    )  # the embedding that is scored is the corrected one
    again = reduction.place(np.load(paths[1])["vectors"], np.full((site == "york").sum(), "york"))
    assert np.allclose(again, fitted["coordinates"][fitted["slide"] == "york"], atol=1e-3)
