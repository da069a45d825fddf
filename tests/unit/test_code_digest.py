"""Which code a script runs: comments and dates do not count, reachable modules do, others do not."""

from conftest import ROOT

from glomerulearn.code_digest import _imported, _meaning, code_digest, reachable


def package(folder):
    library = folder / "lib"
    library.mkdir()
    (library / "__init__.py").write_text("")
    (library / "low.py").write_text("VALUE = 1\n")
    (library / "high.py").write_text("from lib.low import VALUE\n")
    (library / "other.py").write_text("OTHER = 1\n")
    script = folder / "script.py"
    script.write_text("from lib import high\n")
    return script, library


def digest(script, library):
    _imported.cache_clear()
    _meaning.cache_clear()
    return code_digest(script, library)


def test_follows_imports_and_ignores_comments(tmp_path):
    script, library = package(tmp_path)
    before = digest(script, library)
    (library / "other.py").write_text("OTHER = 2\n")
    (library / "low.py").write_text('"""Now documented."""\n\nVALUE = 1  # the same\n')
    assert digest(script, library) == before
    (library / "low.py").write_text("VALUE = 2\n")
    assert digest(script, library) != before


def test_networks_do_not_reach_clustering():
    scripts, library = ROOT / "workflow_scripts", ROOT / "workflow_scripts" / "glomerulearn"
    names = {path.name for path in reachable(scripts / "cluster_glomeruli.py", library)}
    assert "clustering.py" in names and not names & {"training.py", "segnet.py", "unet.py", "patches.py"}
    names = {path.name for path in reachable(scripts / "tile_slide.py", library)}
    assert "tiling.py" in names and not names & {"training.py", "models.py", "embedding.py"}
    # how slides and annotations are read is no matter to what is trained on patches and crops
    reading = {"slides.py", "reading.py", "features.py", "jpeg_tiles.py"}
    for script in ("train_segmenter", "train_autoencoder", "embed_glomeruli", "score_segmenter"):
        assert not {path.name for path in reachable(scripts / f"{script}.py", library)} & reading
    # a second look is taken at the slide itself
    for script in ("train_second_look", "infer_masks"):
        names = {path.name for path in reachable(scripts / f"{script}.py", library)}
        assert "slides.py" in names and not names & {"reading.py", "features.py"}


def test_nothing_heavy_while_the_workflow_is_parsed():
    """What common.smk imports must not reach torch or zarr, which take seconds."""
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, 'workflow_scripts');"
        "import glomerulearn.sheets, glomerulearn.settings, glomerulearn.code_digest;"
        "print([m for m in ('torch', 'zarr', 'numpy', 'pandas', 'cv2') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
