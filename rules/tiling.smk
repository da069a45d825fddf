"""Slides -> tissue patches at one resolution, with a quality row that says why anything is missing."""

if config["slides"] == "demo":

    rule make_demo_cohort:
        """Make the synthetic kidney biopsies of the demo."""
        output:
            files=sorted({row[column] for row in SLIDES.values() for column in ("path", "annotation") if row[column]}),
        log:
            "results/logs/make_demo_cohort.log",
        benchmark:
            "results/benchmarks/make_demo_cohort.jsonl"
        conda:
            "../envs/slides.yaml"
        container:
            config["container"]
        threads: 2
        resources:
            mem_mb=per_attempt(3000),
            runtime=per_attempt(30),
        params:
            code=code("make_demo_cohort"),
            cfg=settings("seed", folder=DEMO),
        script:
            "../workflow_scripts/make_demo_cohort.py"


rule tile_slide:
    """Cut the tissue of a slide into patches."""
    input:
        slide_files("path"),
    output:
        store="results/patches/{slide}.zarr.zip",
        qc="results/qc/{slide}.json",
    log:
        "results/logs/tile_slide/{slide}.log",
    benchmark:
        "results/benchmarks/tile_slide/{slide}.jsonl"
    wildcard_constraints:
        slide=SLIDE_NAMES,
    conda:
        "../envs/slides.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        code=code("tile_slide"),
        cfg=settings("tiling"),
        source=lambda wildcards: [slide_fingerprint(wildcards.slide), SLIDES[wildcards.slide]["mpp"]],
        path=path_of("path"),
        mpp=path_of("mpp"),
    script:
        "../workflow_scripts/tile_slide.py"


rule read_outlines:
    """Read the pathologist's outlines of a slide, whatever program they come from."""
    input:
        slide_files("path", "annotation"),
    output:
        outlines="results/outlines/{slide}.geojson",
    log:
        "results/logs/read_outlines/{slide}.log",
    conda:
        "../envs/slides.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        code=code("read_outlines"),
        cfg=settings("outlines"),
        source=lambda wildcards: [
            slide_fingerprint(wildcards.slide),
            outline_fingerprint(wildcards.slide),
            SLIDES[wildcards.slide]["mpp"],
        ],
        path=path_of("path"),
        annotation=path_of("annotation"),
        mpp=path_of("mpp"),
    script:
        "../workflow_scripts/read_outlines.py"


rule collect_qc:
    """One table of all slides: what was read, what was left out, and why."""
    input:
        slides=expand("results/qc/{slide}.json", slide=SLIDES),
        outlines=outlines_of(SLIDES),
    output:
        table=report(
            "results/qc/slides.tsv", category="1 Slides", labels={"table": "quality"}, caption="../report/qc.rst"
        ),
    log:
        "results/logs/collect_qc.log",
    conda:
        "../envs/slides.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("collect_qc"),
    script:
        "../workflow_scripts/collect_qc.py"


rule check_leaks:
    """Fail when one slide, file or patient stands in two of train, val and test."""
    input:
        patches=expand("results/patches/{slide}.zarr.zip", slide=slides_of("train", "val", "test")),
        models=expand("results/models/{segmenter}/model.json", segmenter=PRETRAINED),
    output:
        table="results/qc/leaks.tsv",
    log:
        "results/logs/check_leaks.log",
    conda:
        "../envs/slides.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("check_leaks"),
        cfg=json.dumps(
            {name: [SLIDES[name]["split"], SLIDES[name]["patient"]] for name in slides_of("train", "val", "test")},
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/check_leaks.py"
