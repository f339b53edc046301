"""Training cases in an external cohort are recognised by name, by look and by features."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_stores import grid, textures

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.seen_cases import SeenCases
from e2e_abmilx.models import load_model
from e2e_abmilx.models.inputs import bags_of
from e2e_abmilx.models.leaks import refuse_seen_cases
from e2e_abmilx.store import StoreWriter


@pytest.fixture(scope="module")
def contract(slide_run: Path) -> InputContract:
    """The contract of the model of slides."""
    return load_model(slide_run, device="cpu").contract


@pytest.fixture(scope="module")
def trained(cohort: Path) -> list[str]:
    """Names of the slides that the model was trained or validated on."""
    rows = [row.split(",") for row in (cohort / "labels.csv").read_text().splitlines()]
    slide, split = rows[0].index("slide"), rows[0].index("split")
    return [row[slide] for row in rows[1:] if row[split] in ("train", "val")]


def case_of(slide: str) -> Case:
    return Case(slide.replace("slide", "case"), (slide,))


@pytest.mark.slow  # it draws and caches another cohort
def test_a_separately_drawn_cohort_is_not_refused(contract: InputContract, external: Path) -> None:
    """Its cases and slides have the names of the training cases, and look different."""
    bags = bags_of([case_of(f"slide-{number:03}") for number in range(24)], external / "stores", contract)
    assert refuse_seen_cases(bags, [contract]) == []


def test_the_test_cases_of_the_same_cohort_are_not_refused(
    contract: InputContract, stores: Path, trained: list[str]
) -> None:
    others = [case_of(name) for number in range(24) if (name := f"slide-{number:03}") not in trained]
    assert len(others) == 8
    assert refuse_seen_cases(bags_of(others, stores, contract), [contract]) == []


def test_every_training_case_is_refused(contract: InputContract, stores: Path, trained: list[str]) -> None:
    bags = bags_of([case_of(name) for name in trained], stores, contract)
    with pytest.raises(ContractError) as refused:
        refuse_seen_cases(bags, [contract])
    lines = str(refused.value).splitlines()
    assert lines[0] == "16 of 16 cases are among those that the model was trained or validated on:"
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[-2].strip() == "and 6 more"
    assert "--allow" in lines[-1]


def test_renamed_copies_are_refused(contract: InputContract, stores: Path, trained: list[str], tmp_path: Path) -> None:
    shutil.copytree(stores / f"{trained[0]}.zarr", tmp_path / "renamed.zarr")
    fine = next(name for number in range(24) if (name := f"slide-{number:03}") not in trained)
    shutil.copytree(stores / f"{fine}.zarr", tmp_path / "fine.zarr")
    bags = bags_of([Case("one", ("renamed",)), Case("two", ("fine",))], tmp_path, contract)
    with pytest.raises(
        ContractError, match=r"1 of 2 cases[^\n]*\n  one: slide 'renamed' looks like one of their slides"
    ):
        refuse_seen_cases(bags, [contract])
    for allowed in ("one", "renamed", "ren*", "o?e"):
        assert refuse_seen_cases(bags, [contract], [allowed]) == []
    with pytest.raises(ContractError):
        refuse_seen_cases(bags, [contract], ["two", "fine", "Renamed.zarr"])
    joined = bags_of([Case("both", ("fine", "renamed"))], tmp_path, contract)
    with pytest.raises(ContractError, match="both: slide 'renamed'"):
        refuse_seen_cases(joined, [contract])


def test_a_name_with_brackets_is_allowed_as_written(contract: InputContract, stores: Path, trained: list[str]) -> None:
    bags = bags_of([Case("case [2]", (trained[0],))], stores, contract)
    with pytest.raises(ContractError):
        refuse_seen_cases(bags, [contract])
    assert refuse_seen_cases(bags, [contract], ["case [2]"]) == []


def test_every_model_of_an_ensemble_is_asked(contract: InputContract, stores: Path, trained: list[str]) -> None:
    first, second = trained[:2]
    contracts = []
    for name in (first, second):
        assert contract.seen is not None
        own = SeenCases.of([case_of(name)], {name: None})
        contracts.append(replace(contract, seen=own))
    bags = bags_of([case_of(first), case_of(second)], stores, contract)
    with pytest.raises(ContractError, match="2 of 2 cases"):
        refuse_seen_cases(bags, contracts)
    with pytest.raises(ContractError, match=r"1 of 2 cases[^\n]*\n  " + case_of(second).id):
        refuse_seen_cases(bags, contracts[1:])


def test_what_is_not_known_is_said(contract: InputContract, stores: Path, trained: list[str], tmp_path: Path) -> None:
    name = next(name for number in range(24) if (name := f"slide-{number:03}") not in trained)
    bags = bags_of([case_of(name)], stores, contract)
    (said,) = refuse_seen_cases(bags, [replace(contract, seen=None)])
    assert "does not record its training cases" in said
    (said,) = refuse_seen_cases(bags, [replace(contract, seen=SeenCases(1, ("0" * 16,), {"0" * 16: None}))])
    assert "records no thumbnails" in said
    assert len(refuse_seen_cases(bags, [replace(contract, seen=None), contract])) == 1
    with StoreWriter(tmp_path / "imported.zarr", (0.5,), patch_size=64) as writer:  # without a thumbnail
        writer.write(textures(3, side=64), grid(3))
    (said,) = refuse_seen_cases(bags_of([Case("one", ("imported",))], tmp_path, contract), [contract])
    assert said.startswith("1 slides have no thumbnail")
    assert said.endswith("imported")


def test_features_are_known_again_by_their_values(feature_run: Path, tmp_path: Path) -> None:
    contract = load_model(feature_run, device="cpu").contract
    shutil.copy(feature_run.parent / "features/s00.pt", tmp_path / "renamed.pt")
    shutil.copy(feature_run.parent / "features/s20.pt", tmp_path / "other.pt")
    torch.save(torch.ones(3, 8), tmp_path / "s01.pt")
    with pytest.raises(ContractError, match="renamed: slide 'renamed' has the features of one of their slides"):
        refuse_seen_cases(bags_of([Case("renamed", ("renamed",))], tmp_path, contract), [contract])
    with pytest.raises(ContractError, match="s01: slide 's01' is named like one of theirs"):
        refuse_seen_cases(bags_of([Case("s01", ("s01",))], tmp_path, contract), [contract])
    assert refuse_seen_cases(bags_of([Case("other", ("other",))], tmp_path, contract), [contract]) == []
