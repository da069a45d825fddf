"""Which slides are held out together, when every slide is to be judged by networks that have not seen its like."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glomerulearn.errors import InputError


@dataclass(frozen=True)
class Fold:
    """One round of cross-validation: slides to train on, to choose the epoch by, and to judge on."""

    held_groups: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]
    held: tuple[str, ...]


def make_folds(rows: Mapping[str, Mapping], group: str, count: int | None) -> list[Fold]:
    """Hold out every group (`site`, `patient` or `slide`) once.

    rows: outlined slides, name -> row of the sheet. count: number of folds; None = one per group. Groups go to the fold
    with the fewest slides, the largest first, so that the same sheet gives the same folds. The epoch is chosen by the
    sheet's `val` slides that are not held out, or, where all are, by every fifth of the other patients (slides, where the
    sheet names no patient).
    Raises: InputError when a slide has no group, or there are fewer groups than two, or than folds.
    """
    members = defaultdict(list)
    for name, row in rows.items():
        value = name if group == "slide" else row[group]
        if not value:
            raise InputError(
                f"config key `cross_validate`: slide {name!r} has an empty column {group!r} in the slide sheet"
            )
        members[value].append(name)
    count = count or len(members)
    if not 2 <= count <= len(members):
        raise InputError(
            f"config key `cross_validate`: {count} folds of {len(members)} different values in column {group!r}; at least "
            "two, and no more folds than values"
        )
    held = [[] for _ in range(count)]
    for value in sorted(members, key=lambda value: (-len(members[value]), value)):
        min(held, key=lambda values: sum(len(members[each]) for each in values)).append(value)
    return [_fold(rows, members, values) for values in held]


def _fold(rows: Mapping[str, Mapping], members: Mapping[str, Sequence[str]], values: Sequence[str]) -> Fold:
    out = [name for value in values for name in members[value]]
    # a patient with slides in two groups is unseen only if all of them are
    patients = {rows[name]["patient"] for name in out} - {""}
    rest = [name for name in rows if name not in out and rows[name]["patient"] not in patients]
    val = [name for name in rest if rows[name]["split"] == "val"]
    if not val:
        # no patient in both, so that the epoch is chosen by what is unseen
        patient = {name: rows[name]["patient"] or name for name in rest}
        chosen = set(list(dict.fromkeys(patient.values()))[::5])
        val = [name for name in rest if patient[name] in chosen]
    train = [name for name in rest if name not in val]
    if not train or not val:
        raise InputError(
            f"config key `cross_validate`: holding out {', '.join(values)} leaves too few slides, or slides of too few "
            "patients, to train on and to choose the epoch by"
        )
    return Fold(tuple(values), tuple(train), tuple(val), tuple(out))
