"""Whole slides -> masks, outlines for QuPath, a table in micrometres."""


rule infer_masks:
    """Find the glomeruli of a slide with one segmenter."""
    input:
        slide_files("path"),
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
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
        gpu=gpu,
    params:
        code=code("infer_masks"),
        cfg=detection_settings(),
        path=path_of("path"),
    script:
        "../workflow_scripts/infer_masks.py"


rule export_outlines:
    """Write the outlines of a slide for ASAP or Aperio ImageScope."""
    input:
        geojson="results/detections/{segmenter}/{slide}.geojson",
    output:
        outlines="results/detections/{segmenter}/{slide}.{program}.xml",
    log:
        "results/logs/export_outlines/{segmenter}/{slide}_{program}.log",
    wildcard_constraints:
        slide=SLIDE_NAMES,
        program="asap|imagescope",
    conda:
        "../envs/slides.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code("export_outlines"),
    script:
        "../workflow_scripts/export_outlines.py"


rule label_glomeruli:
    """Which label each glomerulus of a slide has, from outlines and label sheet; of crops, from the crop sheet."""
    input:
        detections=lambda wildcards: (
            f"results/detections/best/{wildcards.slide}.geojson" if wildcards.slide in SLIDES else []
        ),
        qc=lambda wildcards: f"results/qc/{wildcards.slide}.json" if wildcards.slide in SLIDES else [],
        outlines=lambda wildcards: outlines_of([wildcards.slide]),
    output:
        labels="results/labels/{slide}.csv",
    log:
        "results/logs/label_glomeruli/{slide}.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code("label_glomeruli"),
        rows=lambda wildcards: label_rows(wildcards.slide),
    script:
        "../workflow_scripts/label_glomeruli.py"


rule detection:
    """Target: the glomeruli of every slide, outlined by the best segmenter and, where they are compared, by each."""
    input:
        expand("results/detections/best/{slide}.geojson", slide=SLIDES),
        expand(
            "results/detections/{segmenter}/{slide}.geojson",
            segmenter=SEGMENTERS,
            slide=slides_of(*config["detection"]["compare_on"]),
        ),
        expand(
            "results/detections/best/{slide}.{program}.xml",
            slide=SLIDES,
            program=config["detection"]["also_for"],
        ),
