"""Slides and results on S3, against a local server that speaks it."""

import json

import boto3
import pytest
import runs
import torch
from moto.server import ThreadedMotoServer

from glomerulearn import synthetic
from glomerulearn.models import save_model
from glomerulearn.networks.segmenters import build_segmenter

NETWORK = {"base": 4, "depth": 3}
TARGETS = ["results/crops/K1.zarr.zip", "results/labels/K1.csv", "results/qc/slides.tsv"]


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket `kidney`, and the environment in which Snakemake finds it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="kidney")
    yield bucket
    server.stop()


def test_slides_and_results_on_s3(bucket, small_slide, tmp_path):
    bucket.upload_file(str(small_slide[0]), "scans/K1.svs")
    bucket.upload_file(str(small_slide[1]), "outlines/K1.geojson")
    row = {"slide": "K1", "path": "s3://kidney/scans/K1.svs", "annotation": "s3://kidney/outlines/K1.geojson"}
    runs.write_sheet(tmp_path / "sheet.tsv", [row | {"split": "predict"}])
    facts = {
        "segmenter": "unet", "network": NETWORK, "classes": ["glomerulus"], "mpp": 4.0, "train": [], "normalise": True,
        "known": {"files": [], "mpp_level0": [1.0], "density": [[0.2, 0.3, 0.2]]},
    }  # fmt: skip
    nothing = {name: torch.zeros_like(values) for name, values in build_segmenter("unet", NETWORK).state_dict().items()}
    save_model(tmp_path / "unet", nothing, facts, [{"epoch": 1}])  # half a glomerulus everywhere, which is none
    config = runs.demo_settings(
        slides=str(tmp_path / "sheet.tsv"), pretrained={"unet": str(tmp_path / "unet" / "model.safetensors")}
    )
    config["segmentation"]["segmenters"] = ["unet"]
    on_s3 = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://kidney/study"]

    def planned():
        return runs.snakemake(tmp_path / "work", config, *TARGETS, *on_s3, "-n").stdout

    result = runs.snakemake(tmp_path / "work", config, *TARGETS, *on_s3)
    assert result.returncode == 0, result.stdout[-4000:]
    kept = {item.key for item in bucket.objects.filter(Prefix="study/")}
    assert {f"study/{target}" for target in TARGETS} <= kept and "study/results/models/best/model.json" in kept
    assert not (tmp_path / "work" / "results" / "crops").exists()
    assert "K1\tok" in bucket.Object("study/results/qc/slides.tsv").get()["Body"].read().decode()
    assert "Nothing to be done" in planned()
    bucket.upload_file(str(small_slide[1]), "outlines/K1.geojson")  # a new date is a new outline
    again = planned()
    assert "read_outlines" in again and "tile_slide" not in again


def test_a_second_look_is_trained_on_slides_on_s3(bucket, small_slide, tmp_path):
    truth = synthetic.make_slide(tmp_path / "K2.svs", synthetic.Recipe(1200, 900, mpp=1.0, glomeruli=6), seed=8)
    synthetic.write_outlines(tmp_path / "K2.geojson", list(zip(truth.polygons, truth.grades, strict=True)), "K2")
    rows = []
    for slide, split, files in (
        ("K1", "train", small_slide),
        ("K2", "val", (tmp_path / "K2.svs", tmp_path / "K2.geojson")),
    ):
        for path, name in zip(files, (f"{slide}.svs", f"{slide}.geojson"), strict=False):
            bucket.upload_file(str(path), name)
        rows.append(
            {
                "slide": slide, "path": f"s3://kidney/{slide}.svs", "annotation": f"s3://kidney/{slide}.geojson",
                "split": split, "patient": slide,
            }
        )  # fmt: skip
    config = runs.demo_settings(slides=str(runs.write_sheet(tmp_path / "sheet.tsv", rows)))
    config["segmentation"] |= {
        "segmenters": ["unet"], "networks": {"unet": NETWORK}, "epochs": 1, "windows_per_epoch": 16,
        "second_look": {"epochs": 1, "windows_per_epoch": 16},
    }  # fmt: skip
    result = runs.snakemake(tmp_path / "work", config, "results/models/unet/model.json")
    assert result.returncode == 0, result.stdout[-4000:]
    facts = json.loads((tmp_path / "work" / "results" / "models" / "unet" / "model.json").read_text())
    assert facts["train"] == ["K1"] and facts["second_look"]["places"]["other tissue"] == 40
