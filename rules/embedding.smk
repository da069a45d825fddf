"""Glomeruli -> crops -> vectors."""


rule crop_glomeruli:
    """Cut every detected glomerulus of a slide at a fixed field, with its mask."""
    input:
        slide_files("path"),
        mask="results/masks/best/{slide}.zarr.zip",
        table="results/detections/best/{slide}.csv",
    output:
        store="results/crops/{slide}.zarr.zip",
    log:
        "results/logs/crop_glomeruli/{slide}.log",
    benchmark:
        "results/benchmarks/crop_glomeruli/{slide}.jsonl"
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
        code=code("crop_glomeruli"),
        cfg=settings("cropping"),
        path=path_of("path"),
        mpp=path_of("mpp"),
    script:
        "../workflow_scripts/crop_glomeruli.py"


if CROPS:

    ruleorder: import_crops > crop_glomeruli

    rule import_crops:
        """Take in the crops of one slide that users already have."""
        output:
            store="results/crops/{slide}.zarr.zip",
        log:
            "results/logs/import_crops/{slide}.log",
        wildcard_constraints:
            slide="|".join(map(re.escape, CROPS)),
        conda:
            "../envs/slides.yaml"
        container:
            config["container"]
        resources:
            mem_mb=per_attempt(2000),
            runtime=per_attempt(30),
        params:
            code=code("import_crops"),
            cfg=settings("cropping"),
            source=lambda wildcards: crop_fingerprints(wildcards.slide),
            rows=lambda wildcards, input: CROPS[wildcards.slide],
        script:
            "../workflow_scripts/import_crops.py"


rule train_autoencoder:
    """Train an autoencoder, plain or denoising, on the glomeruli of the reference slides."""
    input:
        crops=expand("results/crops/{slide}.zarr.zip", slide=reference()),
    output:
        weights="results/models/{autoencoder}/model.safetensors",
        facts="results/models/{autoencoder}/model.json",
        epochs="results/models/{autoencoder}/epochs.csv",
    log:
        "results/logs/train_autoencoder/{autoencoder}.log",
    benchmark:
        "results/benchmarks/train_autoencoder/{autoencoder}.jsonl"
    wildcard_constraints:
        autoencoder="autoencoder|denoising",
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    threads: 8
    resources:
        mem_mb=per_attempt(8000),
        runtime=per_attempt(1440),
        gpu=gpu,
    params:
        code=code("train_autoencoder"),
        cfg=lambda wildcards: json.dumps(
            config["embedding"][wildcards.autoencoder]
            | {"pixels": config["embedding"]["pixels"], "seed": config["seed"]},
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/train_autoencoder.py"


rule train_contrastive:
    """Train the contrastive encoder on the glomeruli of the reference slides."""
    input:
        crops=expand("results/crops/{slide}.zarr.zip", slide=reference()),
    output:
        weights="results/models/contrastive/model.safetensors",
        facts="results/models/contrastive/model.json",
        epochs="results/models/contrastive/epochs.csv",
    log:
        "results/logs/train_contrastive.log",
    benchmark:
        "results/benchmarks/train_contrastive.jsonl"
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    threads: 8
    resources:
        mem_mb=per_attempt(8000),
        runtime=per_attempt(1440),
        gpu=gpu,
    params:
        code=code("train_contrastive"),
        cfg=json.dumps(
            config["embedding"]["contrastive"] | {"pixels": config["embedding"]["pixels"], "seed": config["seed"]},
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/train_contrastive.py"


if config["embedding"]["fine_tune"]:

    rule fine_tune_extractor:
        """Fine-tune a pretrained network on whether a window of a train slide holds a glomerulus."""
        input:
            train=expand("results/patches/{slide}.zarr.zip", slide=slides_of("train")),
            train_outlines=expand("results/outlines/{slide}.geojson", slide=slides_of("train")),
            val=expand("results/patches/{slide}.zarr.zip", slide=slides_of("val")),
            val_outlines=expand("results/outlines/{slide}.geojson", slide=slides_of("val")),
        output:
            weights="results/models/{extractor}/model.safetensors",
            facts="results/models/{extractor}/model.json",
            epochs="results/models/{extractor}/epochs.csv",
        log:
            "results/logs/fine_tune_extractor/{extractor}.log",
        benchmark:
            "results/benchmarks/fine_tune_extractor/{extractor}.jsonl"
        wildcard_constraints:
            extractor="|".join(config["embedding"]["fine_tune"]),
        conda:
            "../envs/torch.yaml"
        container:
            config["container"]
        threads: 8
        resources:
            mem_mb=per_attempt(8000),
            runtime=per_attempt(1440),
            gpu=gpu,
        params:
            code=code("fine_tune_extractor"),
            cfg=lambda wildcards: json.dumps(
                extractor_settings(wildcards.extractor)
                | config["embedding"]["fine_tuning"]
                | {key: config["segmentation"][key] for key in ("normalise", "augmentation")}
                | {"seed": config["seed"]},
                sort_keys=True,
            ),
        script:
            "../workflow_scripts/fine_tune_extractor.py"


ruleorder: measure_glomeruli > embed_glomeruli


rule embed_glomeruli:
    """Turn every crop of a slide into a vector."""
    input:
        unpack(own_model),
        crops="results/crops/{slide}.zarr.zip",
    output:
        vectors="results/embeddings/{extractor}/{slide}.npz",
    log:
        "results/logs/embed_glomeruli/{extractor}/{slide}.log",
    benchmark:
        "results/benchmarks/embed_glomeruli/{extractor}/{slide}.jsonl"
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
        code=code("embed_glomeruli"),
        cfg=lambda wildcards: embedding_settings(wildcards.extractor),
    script:
        "../workflow_scripts/embed_glomeruli.py"


rule measure_glomeruli:
    """Measure structure, stain and shape of every crop of a slide."""
    input:
        crops="results/crops/{slide}.zarr.zip",
    output:
        vectors="results/embeddings/morphology/{slide}.npz",
    log:
        "results/logs/measure_glomeruli/{slide}.log",
    benchmark:
        "results/benchmarks/measure_glomeruli/{slide}.jsonl"
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        code=code("measure_glomeruli"),
        cfg=json.dumps({"pixels": config["embedding"]["pixels"]}, sort_keys=True),
    script:
        "../workflow_scripts/measure_glomeruli.py"
