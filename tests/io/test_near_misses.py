"""Names that mistyped names probably mean."""

import argparse

import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.near_misses import did_you_mean, refuse_near_misses


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--data.lables", "; did you mean --data.labels?"),
        ("--dta.labels", "; did you mean --data.labels?"),
        ("--chekpoint.dir", "; did you mean --checkpoint.dir?"),  # --checkpoint may have options of a class
        ("--zzz", ""),
        ("--data.zzzzzzzzzzzz", ""),
    ],
)
def test_the_near_miss_is_named(name: str, expected: str) -> None:
    assert did_you_mean(name, ["--data", "--data.labels", "--checkpoint"]) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("hiden", "; did you mean hidden_features?"), ("num_x", ""), ("hid", "")]
)
def test_a_beginning_means_the_only_name_that_begins_so(name: str, expected: str) -> None:
    assert did_you_mean(name, ["hidden_features", "num_heads_of_all", "num_outputs_in_all"]) == expected


def test_words_for_another_parser_are_refused_only_if_they_are_nearly_own_options() -> None:
    parser = argparse.ArgumentParser(prog="e2e-abmilx compare")
    parser.add_argument("--configs")
    parser.add_argument("--heads")
    refuse_near_misses(parser, ["--config", "a.yaml", "--model.head=ABMIL", "heads", "--trainer.max_epochs", "3"])
    with pytest.raises(InputError, match=r"--head is no option of compare; did you mean --heads\?"):
        refuse_near_misses(parser, ["--head=ABMIL"])
