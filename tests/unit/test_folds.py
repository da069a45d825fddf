"""Folds: every group is held out once, and nothing of it is trained on."""

import pytest

from glomerulearn.errors import InputError
from glomerulearn.folds import make_folds


def sheet(**sites):
    rows = {}
    for site, count in sites.items():
        for number in range(count):
            split = "val" if number == 0 else "train"
            rows[f"{site}{number}"] = {"site": site, "patient": f"{site}P{number // 2}", "split": split}
    return rows


def test_every_site_is_held_out_once():
    rows = sheet(A=5, B=3, C=2, D=4)
    folds = make_folds(rows, "site", None)
    assert sorted(fold.held_groups for fold in folds) == [("A",), ("B",), ("C",), ("D",)]
    for fold in folds:
        assert {rows[name]["site"] for name in fold.held} == set(fold.held_groups)
        assert not {rows[name]["site"] for name in (*fold.train, *fold.val)} & set(fold.held_groups)
        assert sorted((*fold.train, *fold.val, *fold.held)) == sorted(rows)
        assert all(rows[name]["split"] == "val" for name in fold.val)


def test_fewer_folds_than_sites_are_even():
    folds = make_folds(sheet(A=5, B=3, C=2, D=4), "site", 2)
    assert sorted(len(fold.held) for fold in folds) == [7, 7]


def test_slides_of_a_held_out_patient_are_not_trained_on():
    rows = sheet(A=4, B=4)
    folds = make_folds(rows, "slide", None)
    assert len(folds) == 8
    for fold in folds:
        assert not {rows[n]["patient"] for n in fold.held} & {rows[n]["patient"] for n in (*fold.train, *fold.val)}
    assert [len(fold.held) for fold in make_folds(rows, "patient", None)] == [2] * 4


def test_where_all_val_slides_are_held_out_others_take_their_place():
    rows = sheet(A=2) | {f"B{n}": {"site": "B", "patient": "", "split": "train"} for n in range(6)}
    fold = next(fold for fold in make_folds(rows, "site", None) if fold.held_groups == ("A",))
    assert fold.val == ("B0", "B5") and len(fold.train) == 4


def test_no_patient_is_trained_on_and_chosen_by():
    rows = {"A0": {"site": "A", "patient": "", "split": "val"}} | {
        f"B{n}": {"site": "B", "patient": f"P{n % 4}", "split": "train"} for n in range(8)
    }
    folds = make_folds(rows, "slide", None)
    for fold in folds:
        assert not {rows[name]["patient"] for name in fold.train} & {rows[name]["patient"] for name in fold.val}
    fold = next(fold for fold in folds if fold.held_groups == ("A0",))
    assert fold.val == ("B0", "B4") and fold.train == ("B1", "B2", "B3", "B5", "B6", "B7")


def test_what_cannot_be_folded_is_named():
    with pytest.raises(InputError, match="5 folds of 2 different values in column 'site'"):
        make_folds(sheet(A=3, B=2), "site", 5)
    with pytest.raises(InputError, match="slide 'A0' has an empty column 'site'"):
        make_folds({"A0": {"site": "", "patient": "", "split": "train"}}, "site", None)
