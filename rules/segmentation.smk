"""Train the segmenters, compare them on slides that none of them saw, and choose the best."""

MODEL = ("model.safetensors", "model.json")
# but for cross-validation, which trains all afresh
TRAINED_HERE = f"(?!({'|'.join(PRETRAINED)})/){TRAINED}" if PRETRAINED else TRAINED


rule train_segmenter:
    """Train a segmenter on the train slides, watched on the val slides."""
    input:
        train=patches_for("train"),
        train_outlines=outlines_for("train"),
        val=patches_for("val"),
        val_outlines=outlines_for("val"),
        # must have passed, but a new test slide is no reason to train again
        leaks=ancient("results/qc/leaks.tsv"),
    output:
        weights=f"{FIRST_LOOK}/model.safetensors",
        facts=f"{FIRST_LOOK}/model.json",
        epochs=f"{FIRST_LOOK}/epochs.csv",
    log:
        "results/logs/train_segmenter/{segmenter}.log",
    benchmark:
        "results/benchmarks/train_segmenter/{segmenter}.jsonl"
    wildcard_constraints:
        segmenter=TRAINED_HERE,
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    threads: 8
    resources:
        mem_mb=per_attempt(8000),
        runtime=per_attempt(2880),
        gpu=gpus,
    params:
        code=code("train_segmenter"),
        cfg=lambda wildcards: training_settings(wildcards.segmenter),
        # for the model card only: a function of `input` is not tracked, so that a word about it trains nothing again
        licence=lambda wildcards, input: config["segmentation"]["licence"],
    script:
        "../workflow_scripts/train_segmenter.py"


if config["segmentation"]["second_look"]:

    rule train_second_look:
        """Train a segmenter to look again, closer, at what it found or nearly found."""
        input:
            scans=scans_for("train", "val"),
            train=patches_for("train"),
            train_outlines=outlines_for("train"),
            val=patches_for("val"),
            val_outlines=outlines_for("val"),
            weights=f"{FIRST_LOOK}/model.safetensors",
            facts=f"{FIRST_LOOK}/model.json",
        output:
            weights="results/models/{segmenter}/model.safetensors",
            facts="results/models/{segmenter}/model.json",
            epochs="results/models/{segmenter}/epochs.csv",
        log:
            "results/logs/train_second_look/{segmenter}.log",
        benchmark:
            "results/benchmarks/train_second_look/{segmenter}.jsonl"
        wildcard_constraints:
            segmenter=TRAINED_HERE,
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
            code=code("train_second_look"),
            cfg=lambda wildcards: second_look_settings(wildcards.segmenter),
            paths=scan_paths("train", "val"),
            licence=lambda wildcards, input: config["segmentation"]["licence"],
        script:
            "../workflow_scripts/train_second_look.py"


if PRETRAINED:

    rule take_segmenter:
        """Take in a segmenter that was trained elsewhere."""
        output:
            weights="results/models/{segmenter}/model.safetensors",
            facts="results/models/{segmenter}/model.json",
        log:
            "results/logs/take_segmenter/{segmenter}.log",
        wildcard_constraints:
            segmenter="|".join(PRETRAINED),
        conda:
            "../envs/torch.yaml"
        container:
            config["container"]
        resources:
            mem_mb=per_attempt(2000),
            runtime=per_attempt(30),
        params:
            code=code("take_segmenter"),
            mpp=config["tiling"]["mpp"],
            source=lambda wildcards: model_fingerprint(wildcards.segmenter),
            path=lambda wildcards, input: PRETRAINED[wildcards.segmenter],
        script:
            "../workflow_scripts/take_segmenter.py"


rule score_segmenter:
    """Score a segmenter on the whole, stitched slides of one split."""
    input:
        patches=patches_for(None),
        outlines=outlines_for(None),
        masks=lambda wildcards: masks_of(wildcards.segmenter, wildcards.split),
        leaks=ancient("results/qc/leaks.tsv"),
    output:
        table="results/scores/segmenters/{segmenter}_{split}.tsv",
    log:
        "results/logs/score_segmenter/{segmenter}_{split}.log",
    benchmark:
        "results/benchmarks/score_segmenter/{segmenter}_{split}.jsonl"
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(120),
    params:
        code=code("score_segmenter"),
    script:
        "../workflow_scripts/score_segmenter.py"


rule compare_segmenters:
    """All segmenters side by side: one row per slide, and one over all slides of a split."""
    input:
        tables=expand(
            "results/scores/segmenters/{segmenter}_{split}.tsv",
            segmenter=SEGMENTERS,
            split=scored(),
        ),
    output:
        table=report(
            "results/scores/segmenters.tsv",
            category="2 Segmentation",
            labels={"table": "scores"},
            caption="../report/segmenters.rst",
        ),
        groups=report(
            "results/scores/segmenters_by_group.tsv",
            category="2 Segmentation",
            labels={"table": "scores by site, stain and group"},
            caption="../report/segmenters_by_group.rst",
        ),
        comparison=report(
            "results/scores/comparison.tsv",
            category="2 Segmentation",
            labels={"table": "intervals and differences"},
            caption="../report/comparison.rst",
        ),
    log:
        "results/logs/compare_segmenters.log",
    conda:
        "../envs/torch.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("compare_segmenters"),
        cfg=json.dumps({"seed": config["seed"], "groups": slide_groups(), "starts": starts()}, sort_keys=True),
    script:
        "../workflow_scripts/compare_segmenters.py"


rule choose_segmenter:
    """Choose the segmenter with the highest MeanIoU on the val slides; the test slides have no say."""
    input:
        tables=expand("results/scores/segmenters/{segmenter}_val.tsv", segmenter=SEGMENTERS) if slides_of("val") else [],
        models=expand("results/models/{segmenter}/{file}", segmenter=SEGMENTERS, file=MODEL),
    output:
        expand("results/models/best/{file}", file=MODEL),
    log:
        "results/logs/choose_segmenter.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("choose_segmenter"),
    script:
        "../workflow_scripts/choose_segmenter.py"


if FOLDS:

    rule cross_validate:
        """Every segmenter on slides whose whole group it has not seen; one row per fold, then mean and spread."""
        input:
            tables=expand(
                "results/scores/segmenters/{segmenter}.fold{fold}_held.tsv",
                segmenter=SEGMENTERS,
                fold=range(1, len(FOLDS) + 1),
            ),
        output:
            table=report(
                "results/scores/cross_validation.tsv",
                category="2 Segmentation",
                labels={"table": "cross-validation"},
                caption="../report/cross_validation.rst",
            ),
        log:
            "results/logs/cross_validate.log",
        conda:
            "../envs/torch.yaml"
        container:
            config["container"]
        resources:
            mem_mb=per_attempt(500),
            runtime=per_attempt(10),
        params:
            code=code("cross_validate"),
            cfg=json.dumps([fold.held_groups for fold in FOLDS]),
        script:
            "../workflow_scripts/cross_validate.py"


rule segmentation:
    """Target: both segmenters trained, scored and compared."""
    input:
        ["results/qc/slides.tsv", "results/models/best/model.json"] if SLIDES else [],
        ["results/scores/segmenters.tsv"] if SLIDES and scored() else [],
        ["results/scores/cross_validation.tsv"] if FOLDS else [],
