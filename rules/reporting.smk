"""Figures, and what of it goes into the report."""

import csv


rule draw_learning_curves:
    """Loss and scores of every epoch."""
    input:
        first=expand(f"{FIRST_LOOK}/epochs.csv", segmenter=NEWLY_TRAINED),
        second=(
            expand("results/models/{segmenter}/epochs.csv", segmenter=NEWLY_TRAINED)
            if config["segmentation"]["second_look"]
            else []
        ),
    output:
        figure=report(
            "results/figures/learning_curves.png",
            category="2 Segmentation",
            labels={"figure": "learning curves"},
            caption="../report/learning_curves.rst",
        ),
    log:
        "results/logs/draw_learning_curves.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code("draw_learning_curves"),
        segmenters=NEWLY_TRAINED,
    script:
        "../workflow_scripts/draw_learning_curves.py"


rule draw_segmentations:
    """The pathologist's outlines and those of every segmenter, side by side on the test slides."""
    input:
        **{segmenter: masks_of(segmenter, "test") for segmenter in SEGMENTERS},
        patches=expand("results/patches/{slide}.zarr.zip", slide=slides_of("test")),
        outlines=outlines_of(slides_of("test")),
    output:
        figure=report(
            "results/figures/segmentations.png",
            category="2 Segmentation",
            labels={"figure": "truth and segmenters"},
            caption="../report/segmentations.rst",
        ),
    log:
        "results/logs/draw_segmentations.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        code=code("draw_segmentations"),
        segmenters=SEGMENTERS,
    script:
        "../workflow_scripts/draw_segmentations.py"


rule draw_k_scores:
    """Each metric over the number of clusters."""
    input:
        k_scores=[f"results/scores/k/{extractor}_{reducer}.tsv" for extractor, reducer in SPACES],
    output:
        figure=report(
            "results/figures/k_scores.png",
            category="3 Grading",
            labels={"figure": "scores over k"},
            caption="../report/k_scores.rst",
        ),
    log:
        "results/logs/draw_k_scores.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code("draw_k_scores"),
        weights={name: extractor_settings(name).get("weights", "") for name in EXTRACTORS},
    script:
        "../workflow_scripts/draw_k_scores.py"


rule draw_agreement:
    """Agreement with the label beside agreement with the site."""
    input:
        variants="results/scores/variants.tsv",
    output:
        figure=report(
            "results/figures/agreement.png",
            category="3 Grading",
            labels={"figure": "label and site"},
            caption="../report/agreement.rst",
        ),
    log:
        "results/logs/draw_agreement.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        code=code("draw_agreement"),
    script:
        "../workflow_scripts/draw_agreement.py"


rule draw_variants:
    """Scatter and gallery of every variant of one extractor and reducer."""
    input:
        coordinates="results/reductions/{extractor}_{reducer}.npz",
        fits="results/clusters/{extractor}_{reducer}.npz",
        variants="results/scores/variants.tsv",
        labels=labels_of(reference()),
        crops=expand("results/crops/{slide}.zarr.zip", slide=reference()),
    output:
        [
            report(
                f"results/figures/variants/{{extractor}}_{{reducer}}_{method}.png",
                category="4 Variants",
                subcategory="{extractor}",
                labels={"reducer": "{reducer}", "method": method},
                caption="../report/variant.rst",
            )
            for method in METHODS
        ],
    log:
        "results/logs/draw_variants/{extractor}_{reducer}.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        code=code("draw_variants"),
        methods=METHODS,
        sites=json.dumps(sites(), sort_keys=True),
    script:
        "../workflow_scripts/draw_variants.py"


rule write_atlas:
    """The cohort's glomeruli by grade, on one page."""
    input:
        glomeruli="results/glomeruli.csv",
        grades="results/clusters/grades.json",
        crops=expand("results/crops/{slide}.zarr.zip", slide=COHORT),
    output:
        page=report("results/atlas.html", category="3 Grading", labels={"page": "atlas"}, caption="../report/atlas.rst"),
    log:
        "results/logs/write_atlas.log",
    conda:
        "../envs/report.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        code=code("write_atlas"),
        sites=json.dumps(sites(COHORT), sort_keys=True),
    script:
        "../workflow_scripts/write_atlas.py"


rule write_anndata:
    """Table, vectors and spaces of the cohort in one file, for scanpy."""
    input:
        glomeruli="results/glomeruli.csv",
        grades="results/clusters/grades.json",
        variants="results/scores/variants.tsv",
        vectors=expand("results/embeddings/{extractor}/{slide}.npz", extractor=EXTRACTORS, slide=COHORT),
        coordinates=[f"results/reductions/{extractor}_{reducer}.npz" for extractor, reducer in REDUCED],
    output:
        data="results/glomeruli.h5ad",
    log:
        "results/logs/write_anndata.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        code=code("write_anndata"),
        extractors=EXTRACTORS,
        spaces=[list(space) for space in REDUCED],
        slides=json.dumps(described(), sort_keys=True),
    script:
        "../workflow_scripts/write_anndata.py"


FIGURES = [
    "results/atlas.html",
    "results/figures/k_scores.png",
    "results/figures/agreement.png",
    *(
        f"results/figures/variants/{extractor}_{reducer}_{method}.png"
        for extractor, reducer in SPACES + CONSENSUS
        for method in METHODS
    ),
]
if NEWLY_TRAINED:
    FIGURES.append("results/figures/learning_curves.png")
if slides_of("test"):
    FIGURES.append("results/figures/segmentations.png")
ANNDATA = ["results/glomeruli.h5ad"] if config["anndata"] else []


onsuccess:
    print("\nDone. Open in", os.getcwd())
    for path, what in (
        ("results/scores/segmenters.tsv", "how well each segmenter does on slides it never saw"),
        ("results/figures/segmentations.png", "the pathologist's outlines beside each segmenter's"),
        ("results/detections/best/", "outlines to drag onto a slide in QuPath"),
        ("results/graded/", "the same, coloured by grade"),
        ("results/glomeruli.csv", "every glomerulus: where, how large, its grade, its cluster in every variant"),
        ("results/glomeruli.h5ad", "the same with vectors and spaces, for scanpy"),
        ("results/atlas.html", "the glomeruli by grade, to look at in a browser"),
        ("results/grades_per_slide.tsv", "how many glomeruli of every slide have each grade"),
        ("results/scores/grading.tsv", "how far the grades agree with the labels"),
        ("results/scores/variants.tsv", "every variant: agreement with the label, and with the site"),
        ("results/figures/variants/", "scatter and gallery of every variant"),
        ("results/qc/slides.tsv", "every slide: what was read, what was left out, and why"),
    ):
        if Path(path).exists():
            print(f"  {path:36} {what}")
    print("One file with all tables and figures: snakemake --report report.zip")
    quality = Path("results/qc/slides.tsv")
    if SLIDES and quality.exists():
        with quality.open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if row["status"] != "ok" and row["slide"] in SLIDES:
                    print(f"  Slide {row['slide']} is {row['status']}: {row['reason']}")


onstart:
    if SLIDES and config["slides"] != "demo" and config["preset"] != "cpu" and not gpus(None):
        print(
            "Note: no GPU is asked for (`gpu: "
            + str(config["gpu"])
            + "` in the configuration) and the networks are those of `preset: "
            + config["preset"]
            + "`, which take days to train on a CPU. `preset: cpu` takes about an hour on two cores, `gpu: 1` asks for a GPU."
        )
