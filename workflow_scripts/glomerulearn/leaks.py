"""Prove that what a segmenter is scored on was not trained on."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from glomerulearn.errors import InputError
from glomerulearn.familiarity import file_of
from glomerulearn.stores import StoreReader


def check_leaks(
    patches: Sequence[Path], splits: Mapping[str, Sequence[str]], target: Path, models: Sequence[Path] = ()
) -> None:
    """Compare the sources of the patch stores across splits and write the evidence, one row per slide.

    splits: slide -> (split, patient; "" = unknown). models: model cards of segmenters that were trained elsewhere. Two
    slides are one when their files have the same size and the same first megabyte, whatever they are called.
    Raises: InputError naming the slides when one file or one patient stands in two splits, or when a segmenter that comes
    from elsewhere was trained on a val or test slide, or its epoch chosen by a test slide.
    """
    rows = []
    for path in patches:
        facts = StoreReader(path).attributes
        split, patient = splits[facts["slide"]]
        file = file_of(facts) if "source_digest" in facts else ""
        rows.append({"slide": facts["slide"], "split": split, "patient": patient, "file": file})
    for column in ("file", "patient"):
        found = defaultdict(dict)
        for row in rows:
            if row[column]:
                found[row[column]].setdefault(row["split"], row["slide"])
        for value, slides in found.items():
            if len(slides) > 1:
                raise InputError(
                    f"leak: the same {column} ({value}) stands in the splits {', '.join(slides)} of the slide sheet (slides "
                    f"{', '.join(slides.values())}); scores would be about what the network has seen. Give them one split"
                )
    for path in models:
        card = json.loads(Path(path).read_text())
        trained = set(card["known"]["files"])
        chosen = set(card["known"].get("val_files", []))  # cards of before do not say
        for row in rows:
            if row["split"] in ("val", "test") and row["file"] in trained:
                how, others = "was trained on", "train or predict"
            elif row["split"] == "test" and row["file"] in chosen:
                how, others = "was chosen by", "train, val or predict"
            else:
                continue
            raise InputError(
                f"leak: slide {row['slide']!r} has split {row['split']}, but {card['pretrained']} (config key `pretrained`) "
                f"{how} the same file; its score would be about what the network has seen. Give the slide split {others}"
            )
    pd.DataFrame(rows, columns=["slide", "split", "patient", "file"]).to_csv(target, sep="\t", index=False)
