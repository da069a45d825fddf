"""The tables of glomeruli: read back as they were written, and joined to one of the whole cohort."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from glomerulearn.glomeruli import TABLE_COLUMNS
from glomerulearn.labels import LABEL_COLUMNS


def read_table(path: Path) -> pd.DataFrame:
    """A table of glomeruli; names and labels stay text, whatever they look like."""
    return pd.read_csv(
        path,
        dtype={"slide": str, "glomerulus": str, "label": str},
        keep_default_na=False,
        na_values={name: [""] for name in (*TABLE_COLUMNS, "label_iou") if name not in ("slide", "glomerulus")},
    )


def collect_glomeruli(detections: Sequence[Path], labels: Sequence[Path], assignments: Sequence[Path]) -> pd.DataFrame:
    """All glomeruli of a cohort: what was measured of each, its label (empty = none), then one column per variant.

    A glomerulus whose crop could not be read keeps its row, without clusters; crops that users brought have no place on a
    slide.
    """
    assigned = pd.concat([read_table(path) for path in assignments], ignore_index=True)
    measured = [table for table in map(read_table, detections) if len(table)]
    known = pd.concat(measured, ignore_index=True) if measured else pd.DataFrame(columns=list(TABLE_COLUMNS))
    empty = pd.DataFrame(columns=list(LABEL_COLUMNS), dtype=str)
    labelled = pd.concat([empty, *map(read_table, labels)], ignore_index=True)
    table = known.merge(assigned, on=["slide", "glomerulus"], how="outer").merge(labelled, on="glomerulus", how="left")
    table["label"] = table["label"].fillna("")
    first = [*known.columns, *labelled.columns.drop("glomerulus")]
    # whole numbers stay whole where a value is missing
    return table[[*first, *table.columns.drop(first)]].convert_dtypes()
