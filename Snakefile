"""GlomeruLearn: from whole-slide images of renal biopsies to graded glomeruli."""

from snakemake.utils import min_version

min_version("9.27")


configfile: workflow.source_path("config.yaml")


include: "rules/common.smk"
include: "rules/tiling.smk"
include: "rules/segmentation.smk"
include: "rules/detection.smk"
include: "rules/embedding.smk"
include: "rules/clustering.smk"
include: "rules/reporting.smk"


report: "report/workflow.rst"


rule all:
    """Everything: detections, grades, tables, figures."""
    default_target: True
    input:
        rules.segmentation.input,
        rules.detection.input,
        rules.grading.input,
        FIGURES,
        ANNDATA,
