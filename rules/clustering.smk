"""Vectors -> reduced spaces -> clusters, fitted on the reference slides; every slide is then assigned to them."""


rule reduce_embeddings:
    """Fit a reducer on the reference slides."""
    input:
        vectors=expand("results/embeddings/{{extractor}}/{slide}.npz", slide=reference()),
    output:
        model="results/reductions/{extractor}_{reducer}.joblib",
        coordinates="results/reductions/{extractor}_{reducer}.npz",
    log:
        "results/logs/reduce_embeddings/{extractor}_{reducer}.log",
    benchmark:
        "results/benchmarks/reduce_embeddings/{extractor}_{reducer}.jsonl"
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        code=code("reduce_embeddings"),
        cfg=lambda wildcards: json.dumps(
            {
                "reducer": config["reduction"].get(wildcards.reducer, {}),
                "exclude_cut": config["clustering"]["exclude_cut"],
                "site_effect": config["reduction"]["site_effect"],
                # a site that is corrected in the sheet refits nothing where sites have no part
                "sites": sites() if config["reduction"]["site_effect"] != "none" else {},
                "seed": config["seed"],
            },
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/reduce_embeddings.py"


rule cluster_glomeruli:
    """Fit K-means for every k and let each metric choose its k; fit the other clusterers."""
    input:
        coordinates="results/reductions/{extractor}_{reducer}.npz",
    output:
        fits="results/clusters/{extractor}_{reducer}.npz",
        k_scores="results/scores/k/{extractor}_{reducer}.tsv",
        variants="results/scores/variants/{extractor}_{reducer}.tsv",
    log:
        "results/logs/cluster_glomeruli/{extractor}_{reducer}.log",
    benchmark:
        "results/benchmarks/cluster_glomeruli/{extractor}_{reducer}.jsonl"
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        code=code("cluster_glomeruli"),
        cfg=json.dumps(
            {
                "k_range": config["clustering"]["k_range"],
                "metrics": config["clustering"]["metrics"],
                "clusterers": CLUSTERERS,
                "seed": config["seed"],
                "sites": sites(),
            },
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/cluster_glomeruli.py"


if CONSENSUS:

    ruleorder: find_consensus > reduce_embeddings

    rule find_consensus:
        """Lay out the glomeruli by how many variants part them, those of little merit left out."""
        input:
            tables=[f"results/scores/variants/{extractor}_{reducer}.tsv" for extractor, reducer in SPACES],
            coordinates=[f"results/reductions/{extractor}_{reducer}.npz" for extractor, reducer in SPACES],
            fits=[f"results/clusters/{extractor}_{reducer}.npz" for extractor, reducer in SPACES],
        output:
            voices="results/reductions/consensus_variants.json",
            coordinates="results/reductions/consensus_variants.npz",
        log:
            "results/logs/find_consensus.log",
        conda:
            "../envs/analysis.yaml"
        container:
            config["container"]
        resources:
            mem_mb=per_attempt(4000),
            runtime=per_attempt(30),
        params:
            code=code("find_consensus"),
            spaces=[list(space) for space in SPACES],
        script:
            "../workflow_scripts/find_consensus.py"


rule pack_fits:
    """All that new glomeruli are placed with, in one file."""
    input:
        reducers=[f"results/reductions/{extractor}_{reducer}.joblib" for extractor, reducer in SPACES],
        fits=[f"results/clusters/{extractor}_{reducer}.npz" for extractor, reducer in SPACES + CONSENSUS],
        voices=[f"results/reductions/{extractor}_{reducer}.json" for extractor, reducer in CONSENSUS],
    output:
        fitted="results/clusters/fitted.zip",
    log:
        "results/logs/pack_fits.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("pack_fits"),
        spaces=[list(space) for space in SPACES],
    script:
        "../workflow_scripts/pack_fits.py"


rule assign_clusters:
    """Give every glomerulus of a slide its cluster in every variant."""
    input:
        embeddings=expand("results/embeddings/{extractor}/{{slide}}.npz", extractor=EXTRACTORS),
        fitted="results/clusters/fitted.zip",
    output:
        table="results/assignments/{slide}.csv",
    log:
        "results/logs/assign_clusters/{slide}.log",
    benchmark:
        "results/benchmarks/assign_clusters/{slide}.jsonl"
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        code=code("assign_clusters"),
        site=lambda wildcards: (
            sites([wildcards.slide])[wildcards.slide] if config["reduction"]["site_effect"] != "none" else ""
        ),
        extractors=EXTRACTORS,
    script:
        "../workflow_scripts/assign_clusters.py"


rule collect_variants:
    """All variants in one table: k, score, agreement with the label and with the site, stability, and which one to take."""
    input:
        tables=[f"results/scores/variants/{extractor}_{reducer}.tsv" for extractor, reducer in SPACES + CONSENSUS],
        fits=[f"results/clusters/{extractor}_{reducer}.npz" for extractor, reducer in SPACES + CONSENSUS],
        labels=labels_of(reference()),
    output:
        table=report(
            "results/scores/variants.tsv",
            category="3 Grading",
            labels={"table": "variants"},
            caption="../report/variants.rst",
        ),
    log:
        "results/logs/collect_variants.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        code=code("collect_variants"),
        spaces=[list(space) for space in SPACES + CONSENSUS],
    script:
        "../workflow_scripts/collect_variants.py"


rule order_grades:
    """Number the clusters of the chosen variant from the least to the most scarred."""
    input:
        variants="results/scores/variants.tsv",
        fits=[f"results/clusters/{extractor}_{reducer}.npz" for extractor, reducer in SPACES + CONSENSUS],
        morphology=expand("results/embeddings/morphology/{slide}.npz", slide=reference()),
    output:
        grades="results/clusters/grades.json",
    log:
        "results/logs/order_grades.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        code=code("order_grades"),
        spaces=[list(space) for space in SPACES + CONSENSUS],
    script:
        "../workflow_scripts/order_grades.py"


rule collect_glomeruli:
    """All glomeruli of the cohort in one table: measures, one column per variant, and the grade."""
    input:
        assignments=expand("results/assignments/{slide}.csv", slide=COHORT),
        detections=expand("results/detections/best/{slide}.csv", slide=SLIDES),
        labels=labels_of(COHORT),
        morphology=expand("results/embeddings/morphology/{slide}.npz", slide=COHORT),
        grades="results/clusters/grades.json",
    output:
        table="results/glomeruli.csv",
    log:
        "results/logs/collect_glomeruli.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        code=code("collect_glomeruli"),
    script:
        "../workflow_scripts/collect_glomeruli.py"


rule grade_outlines:
    """The outlines of every slide again, each in the class of its grade."""
    input:
        glomeruli="results/glomeruli.csv",
        detections=expand("results/detections/best/{slide}.geojson", slide=SLIDES),
    output:
        # not file by file: Snakemake notes every input with every output, which of a thousand slides is a million
        directory("results/graded"),
    log:
        "results/logs/grade_outlines.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(60),
    params:
        code=code("grade_outlines"),
    script:
        "../workflow_scripts/grade_outlines.py"


rule score_grades:
    """How far the grades agree with the labels, and how many glomeruli of every slide and patient have each."""
    input:
        glomeruli="results/glomeruli.csv",
    output:
        scores=report(
            "results/scores/grading.tsv",
            category="3 Grading",
            labels={"table": "grades against labels"},
            caption="../report/grading.rst",
        ),
        confusion="results/scores/confusion.tsv",
        slides="results/grades_per_slide.tsv",
        patients="results/grades_per_patient.tsv",
    log:
        "results/logs/score_grades.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        code=code("score_grades"),
        cfg=json.dumps(
            {"sites": sites(COHORT), "patients": patients(), "order": config["clustering"]["label_order"]},
            sort_keys=True,
        ),
    script:
        "../workflow_scripts/score_grades.py"


rule probe_embeddings:
    """What a classifier could tell from the vectors: the label, with all examples and with few, and the laboratory."""
    input:
        **{
            extractor: expand("results/embeddings/{extractor}/{slide}.npz", extractor=extractor, slide=reference())
            for extractor in MEASURED
        },
        labels=labels_of(reference()),
    output:
        table=report(
            "results/scores/probes.tsv",
            category="3 Grading",
            labels={"table": "what a classifier could tell"},
            caption="../report/probes.rst",
        ),
    log:
        "results/logs/probe_embeddings.log",
    conda:
        "../envs/analysis.yaml"
    container:
        config["container"]
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        code=code("probe_embeddings"),
        extractors=MEASURED,
        cfg=json.dumps(
            {"sites": sites(), "shots": config["clustering"]["shots"], "seed": config["seed"]}, sort_keys=True
        ),
    script:
        "../workflow_scripts/probe_embeddings.py"


rule grading:
    """Target: every glomerulus in every variant, and its grade."""
    input:
        "results/glomeruli.csv",
        ["results/graded"] if SLIDES else [],
        "results/scores/variants.tsv",
        "results/scores/grading.tsv",
        "results/scores/probes.tsv",
