"""Whole slides -> masks, outlines for QuPath, a table in micrometres."""


rule infer_masks:
    """Find the glomeruli of a slide with one segmenter."""
    input:
        demo_files("annotation"),
        patches="results/patches/{slide}.zarr.zip",
        weights="results/models/{segmenter}/model.safetensors",
        facts="results/models/{segmenter}/model.json",
    output:
        mask="results/masks/{segmenter}/{slide}.zarr.zip",
        geojson="results/detections/{segmenter}/{slide}.geojson",
        table="results/detections/{segmenter}/{slide}.csv",
    log:
        "results/logs/infer_masks/{segmenter}/{slide}.log",
    benchmark:
        "results/benchmarks/infer_masks/{segmenter}/{slide}.jsonl"
    wildcard_constraints:
        slide=SLIDE_NAMES,
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=gpu,
    params:
        code=code("infer_masks"),
        cfg=settings("detection", "outlines"),
        annotation=path_of("annotation"),
    script:
        "../workflow_scripts/infer_masks.py"


rule detection:
    """Target: the glomeruli of every slide, outlined by the best segmenter and, where they are compared, by each."""
    input:
        expand("results/detections/best/{slide}.geojson", slide=SLIDES),
        expand(
            "results/detections/{segmenter}/{slide}.geojson",
            segmenter=SEGMENTERS,
            slide=slides_of(*config["detection"]["compare_on"]),
        ),
