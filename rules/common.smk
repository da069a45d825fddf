"""The configuration, the sheets, and what the rules ask of them. No rules here."""

import gc
import hashlib
import json
import re
import sys
from functools import cache, lru_cache
from pathlib import Path
from shutil import which

import smart_open
from snakemake.exceptions import WorkflowError

# Planning makes millions of objects that stay: looking for those that do not takes a tenth of its time
gc.set_threshold(100_000)
# Snakemake asks three times for every job where its script lies, and each answer makes a new class
smart_open.parse_uri = lru_cache(smart_open.parse_uri)

SCRIPTS = Path(workflow.basedir, "workflow_scripts")
LIBRARY = SCRIPTS / "glomerulearn"
sys.path.insert(0, str(SCRIPTS))

from glomerulearn.code_digest import code_digest
from glomerulearn.errors import InputError
from glomerulearn.folds import make_folds
from glomerulearn.settings import check_config, start_of
from glomerulearn.sheets import (
    check_names,
    check_splits,
    fingerprint,
    is_remote,
    read_crops,
    read_label_sheet,
    read_slides,
)

DEMO = "results/demo"
SCHEMAS = Path(workflow.basedir, "schemas")
PRESETS = Path(workflow.basedir, "config", "presets")


if config["slides"] == "demo":

    configfile: PRESETS / "demo.yaml"

elif config["preset"] in ("cpu", "original"):

    configfile: PRESETS / f"{config['preset']}.yaml"


def read_sheets():
    """Slides, crops and labels as name -> row(s); what is wrong with config or sheets ends the run here, before any job."""
    try:
        check_config(config, SCHEMAS / "config.schema.yaml")
        slides, crops, labels = {}, {}, {}
        if config["slides"] == "demo":
            # the files are made by a rule, so the sheet that describes them is part of the workflow
            slides = read_slides(Path(workflow.basedir, "config", "slides.tsv"), SCHEMAS / "slides.schema.yaml", DEMO)
        elif config["slides"]:
            slides = read_slides(config["slides"], SCHEMAS / "slides.schema.yaml")
            trained = set(config["segmentation"]["segmenters"]) - set(config["pretrained"])
            check_splits(slides, config["slides"], ("train", "val") if trained else ())
        if config["crops"]:
            crops = read_crops(config["crops"], SCHEMAS / "crops.schema.yaml")
        check_names(slides, crops)
        if config["labels"]:
            labels = read_label_sheet(config["labels"], SCHEMAS / "labels.schema.yaml", slides)
        return slides, crops, labels
    except InputError as error:
        raise WorkflowError(str(error))


def class_map():
    """Class name in any case -> label; what the user says comes after the default and wins, null switches off."""
    classes = {name.casefold(): label for name, label in config["outlines"]["classes"].items()}
    return {name: label for name, label in classes.items() if label is not None}


SLIDES, CROPS, LABELS = read_sheets()
config["outlines"]["classes"] = class_map()
# without epochs it is off, as null says, so that nobody need write the whole mapping to have it back
if config["segmentation"]["second_look"] and not config["segmentation"]["second_look"]["epochs"]:
    config["segmentation"]["second_look"] = None
COHORT = [*SLIDES, *CROPS]
# slides and crops go through the same later rules, but only slides are tiled
SLIDE_NAMES = "|".join(map(re.escape, SLIDES)) or "(?!)" if CROPS else "[A-Za-z0-9][A-Za-z0-9_.-]*"
SEGMENTERS = config["segmentation"]["segmenters"] if SLIDES else []
PRETRAINED = {name: config["pretrained"][name] for name in SEGMENTERS if name in config["pretrained"]}
NEWLY_TRAINED = [name for name in SEGMENTERS if name not in PRETRAINED]
EXTRACTORS = config["embedding"]["extractors"]
MEASURED = [*EXTRACTORS, *(["morphology"] if "morphology" not in EXTRACTORS else [])]  # whatever has vectors
REDUCERS = config["reduction"]["reducers"]
CLUSTERERS = config["clustering"]["clusterers"]
# a variant is named after the metric that chose K-means' k, or after another clusterer
METHODS = [
    *(config["clustering"]["metrics"] if "kmeans" in CLUSTERERS else []),
    *(name for name in CLUSTERERS if name != "kmeans"),
]
# a segmenter's own files, before it learns to look again
FIRST_LOOK = (
    "results/models/{segmenter}/first_look" if config["segmentation"]["second_look"] else "results/models/{segmenter}"
)
# the model of this cohort that an extractor runs
OWN_MODELS = {
    "autoencoder": "autoencoder",
    "denoising": "denoising",
    "contrastive": "contrastive",
    "segmenter": "best",
    **{name: name for name in config["embedding"]["fine_tune"]},
}
SPACES = [(extractor, reducer) for extractor in EXTRACTORS for reducer in REDUCERS]
REDUCED = [(extractor, reducer) for extractor, reducer in SPACES if reducer != "none"]
# the variants' disagreement is one more space to cluster in
CONSENSUS = [("consensus", "variants")] if config["clustering"]["consensus"] else []
# unet.fold2: the U-Net of the second round of cross-validation
TRAINED = f"({'|'.join(config['segmentation']['networks'])})(\\.fold[1-9][0-9]*)?"


wildcard_constraints:
    slide="[A-Za-z0-9][A-Za-z0-9_.-]*",
    segmenter=f"{TRAINED}|best",
    split="train|val|test|held",
    extractor="|".join([*EXTRACTORS, *(extractor for extractor, _ in CONSENSUS)]),
    reducer="|".join([*REDUCERS, *(reducer for _, reducer in CONSENSUS)]),
    method="|".join(METHODS),


def slides_of(*splits):
    """Names of the slides with one of the splits."""
    return [name for name, row in SLIDES.items() if row["split"] in splits]


def read_folds():
    """The rounds of cross-validation, if any are asked for."""
    if not (config["cross_validate"] and SLIDES):
        return []
    rows = {name: SLIDES[name] for name in slides_of("train", "val", "test")}
    try:
        return make_folds(rows, config["cross_validate"]["group"], config["cross_validate"]["folds"])
    except InputError as error:
        raise WorkflowError(str(error))


FOLDS = read_folds()


def slides_for(segmenter, split):
    """Names of the slides that a segmenter is trained on, chosen by or judged on."""
    fold = segmenter.partition(".fold")[2]
    return list(getattr(FOLDS[int(fold) - 1], split)) if fold else slides_of(split)


def patches_for(split):
    """The patch stores of a split, for the segmenter that the wildcard names."""
    return lambda wildcards: expand(
        "results/patches/{slide}.zarr.zip", slide=slides_for(wildcards.segmenter, split or wildcards.split)
    )


def outlines_for(split):
    """The outlines of a split's slides, for the segmenter that the wildcard names."""
    return lambda wildcards: expand(
        "results/outlines/{slide}.geojson", slide=slides_for(wildcards.segmenter, split or wildcards.split)
    )


def outlines_of(slides):
    """The outlines of those slides that have any."""
    return [f"results/outlines/{name}.geojson" for name in slides if name in SLIDES and SLIDES[name]["annotation"]]


def labels_of(slides):
    """The labels of the glomeruli of some slides, where they can have any."""
    known = [name for name in slides if name in CROPS or name in LABELS or SLIDES[name]["annotation"]]
    return expand("results/labels/{slide}.csv", slide=known)


def label_rows(name):
    """What the label sheet says of a slide, or the crop sheet of its crops."""
    keys = ("glomerulus", "label", "x_px", "y_px", "x_um", "y_um")
    return json.dumps([{key: row.get(key) for key in keys} for row in CROPS.get(name) or LABELS.get(name, [])])


def starts():
    """What each segmenter was trained from, in words."""
    networks = config["segmentation"]["networks"]
    return {name: start_of(networks[name], PRETRAINED.get(name)) for name in SEGMENTERS}


def scored():
    """The splits that segmenters are compared on."""
    return [split for split in config["detection"]["compare_on"] if slides_of(split)]


def reference():
    """Names of the slides that reducers and clusters are fitted on, and the autoencoder is trained on."""
    if config["clustering"]["reference"] == "all":
        return COHORT
    # crops that users bring are a cohort that somebody chose, with or without labels
    return [*(name for name, row in SLIDES.items() if row["annotation"]), *CROPS]


def code(rule_name):
    """Digest of all the code that a script reaches, so that an edited module runs its dependants again and nothing else."""
    return code_digest(SCRIPTS / f"{rule_name}.py", LIBRARY)


def settings(*rooms, **more):
    """The parts of config that a rule depends on, as one parameter.

    As text with sorted keys: Snakemake compares parameters as a set of values, so two that are swapped go unnoticed.
    """
    return json.dumps({room: config[room] for room in rooms} | more, sort_keys=True)


def sites(slides=None):
    """Slide -> site ("" = unknown) of some slides, by default the reference."""
    found = {name: row["site"] for name, row in SLIDES.items()} | {
        name: rows[0]["site"] for name, rows in CROPS.items()
    }
    return {name: found[name] for name in (reference() if slides is None else slides)}


def described():
    """Slide -> what the sheet says of where it comes from."""
    rows = SLIDES | {name: rows[0] for name, rows in CROPS.items()}
    return {
        name: {key: row.get(key) or "" for key in ("site", "patient", "stain", "group", "split")}
        for name, row in rows.items()
    }


def patients():
    """Slide -> patient, of the slides that name one."""
    return {name: row["patient"] for name, row in SLIDES.items() if row["patient"]}


def slide_groups():
    """site, stain and group of every scored slide, as the sheet says."""
    scored = slides_of("train", "val", "test")
    return {column: {name: SLIDES[name][column] for name in scored} for column in ("site", "stain", "group")}


# A slide or outline file is known by its name and content, not by its date or folder, so that a copy, another mount
# or a touched file costs nothing. The path itself is passed by a function of `input`, which Snakemake does not track.
@cache
def slide_fingerprint(name):
    path = SLIDES[name]["path"]
    if config["slides"] == "demo":
        return "made"
    if is_remote(path):
        return path  # Snakemake watches the object's date
    found, quality = fingerprint(path, whole=False), Path(f"results/qc/{name}.json")
    if found in ("missing", "unreadable") and quality.is_file() and json.loads(quality.read_text())["status"] == "ok":
        raise WorkflowError(
            f"slide {name!r} was used before and is {found} now: {path}; mount its folder, correct its path, "
            "or take its row out of the sheet"
        )
    return found


@cache
def outline_fingerprint(name):
    path = SLIDES[name]["annotation"]
    if config["slides"] == "demo":
        return "made"
    return path if is_remote(path) else fingerprint(path)


@cache
def model_fingerprint(name):
    """What tells a segmenter from elsewhere from another: the content of a file, or an address."""
    place, _, digest = PRETRAINED[name].partition("#sha256=")
    return [PRETRAINED[name]] if place.startswith("https://") else [fingerprint(place), digest]


@cache
def crop_fingerprints(name):
    rows = [
        [row["glomerulus"], *(fingerprint(row[key]) for key in ("image", "mask"))]
        for row in sorted(CROPS[name], key=lambda row: row["glomerulus"])
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def slide_files(*columns):
    """The files of a slide that Snakemake makes (those of the demo cohort) or fetches (those on S3): column -> file."""

    def files(wildcards):
        row = SLIDES[wildcards.slide]
        found = {column: row[column] for column in columns if row[column]}
        if config["slides"] == "demo":
            return found
        return {column: storage.s3(path) for column, path in found.items() if is_remote(path)}

    return unpack(files)


def scans_for(*splits):
    """The slides of some splits that Snakemake makes or fetches, for the segmenter that the wildcard names."""

    def files(wildcards):
        paths = [SLIDES[name]["path"] for split in splits for name in slides_for(wildcards.segmenter, split)]
        if config["slides"] == "demo":
            return paths
        return [storage.s3(path) for path in paths if is_remote(path)]

    return files


def scan_paths(*splits):
    """Slide -> where it is, or where it was fetched to, of some splits; untracked."""

    def paths(wildcards, input):
        names = [name for split in splits for name in slides_for(wildcards.segmenter, split)]
        fetched = iter(input.scans)  # those of the demo are made, and no path of theirs is remote
        return {name: next(fetched) if is_remote(SLIDES[name]["path"]) else SLIDES[name]["path"] for name in names}

    return paths


def path_of(column):
    """The path in a column of the slide's row, or where it was fetched to; untracked."""
    return lambda wildcards, input: input.get(column, SLIDES[wildcards.slide][column])


def per_attempt(value):
    """Memory or time that grows with each attempt: a job that was killed for want of it is given more."""
    return lambda wildcards, attempt: value * attempt


def gpu(wildcards):
    """GPUs that a job on a network asks for."""
    return min(1, gpus_asked())


def gpus(wildcards):
    """GPUs that the training of a segmenter asks for."""
    return gpus_asked()


@cache  # looking for a program takes longer than planning a job
def gpus_asked():
    """What `gpu` in config comes to."""
    if config["gpu"] == "auto":
        # that this machine has one says nothing of the cluster's nodes
        elsewhere = workflow.remote_exec or workflow.non_local_exec
        return int(which("nvidia-smi") is not None and not elsewhere)
    return config["gpu"]


def training_settings(segmenter):
    """The settings of one segmenter only: changing the other's retrains nothing here."""
    chosen = dict(config["segmentation"], seed=config["seed"])
    segmenter = segmenter.partition(".")[0]
    for key in ("segmenters", "networks", "learning_rate", "licence", "second_look"):
        del chosen[key]
    chosen["network"] = config["segmentation"]["networks"][segmenter]
    chosen["learning_rate"] = config["segmentation"]["learning_rate"][segmenter]
    return json.dumps(chosen, sort_keys=True)


def second_look_settings(segmenter):
    """The settings of a segmenter's second look: those of its first, but for what config says of the second."""
    own = config["segmentation"]["second_look"]
    own = own | {"learning_rate": own["learning_rate"][segmenter.partition(".")[0]]}
    return json.dumps(json.loads(training_settings(segmenter)) | own, sort_keys=True)


def extractor_settings(extractor):
    """What config says of an extractor."""
    return (config["embedding"] | config["embedding"]["networks"]).get(extractor, {})


def own_model(wildcards):
    """The model of this cohort that an extractor runs, if it runs one."""
    if wildcards.extractor not in OWN_MODELS:
        return {}
    files = expand("results/models/{name}/{file}", name=OWN_MODELS[wildcards.extractor], file=MODEL)
    return dict(zip(("weights", "facts"), files, strict=True))


@cache  # one text for the jobs of all slides
def embedding_settings(extractor):
    """What an extractor's vectors depend on, but for its model of this cohort."""
    chosen = {key: config["embedding"][key] for key in ("pixels", "orientations")} | {"seed": config["seed"]}
    return json.dumps(extractor_settings(extractor) | chosen, sort_keys=True)


def detection_settings():
    """What a slide's detections depend on: not which slides they are compared on, or who else reads them."""
    chosen = {key: value for key, value in config["detection"].items() if key not in ("also_for", "compare_on")}
    return json.dumps(chosen, sort_keys=True)


def masks_of(segmenter, split):
    """What a segmenter said of every slide of a split."""
    return expand("results/masks/{segmenter}/{slide}.zarr.zip", segmenter=segmenter, slide=slides_for(segmenter, split))
