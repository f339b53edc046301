"""``Model`` predicts what the run's own test predicted, bit for bit, from any form of the slides."""

import csv
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError
from e2e_abmilx.data.inputs import FeatureInput
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.models import CasePrediction, Model, load_model
from e2e_abmilx.models.inputs import bags_of
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, ClassificationTask, SurvivalTask


def rows_of(run: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the run's ``predictions.csv`` by case."""
    with open(run / "predictions.csv", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def slide_of(case: str) -> str:
    return case.replace("case", "slide")


def assert_same_scores(found: CasePrediction, row: dict[str, str]) -> None:
    assert found.scores
    assert {name: f"{score:.9g}" for name, score in found.scores.items()} == {name: row[name] for name in found.scores}


def task_of(run: Path) -> BagTask:
    return load_model(run, device="cpu").tasks[0]


@pytest.mark.parametrize("run", ["slide_run", "survival_run"])
def test_stores_are_predicted_as_in_the_test(run: str, stores: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    model, rows = load_model(folder, device="cpu"), rows_of(folder)
    assert len(rows) == 8
    for case, row in rows.items():
        assert_same_scores(model.predict(stores / f"{slide_of(case)}.zarr"), row)


def test_a_raw_slide_is_predicted_as_its_store(slide_run: Path, cohort: Path) -> None:
    model = load_model(slide_run, device="cpu")
    case, row = next(iter(rows_of(slide_run).items()))
    found = model.predict(str(cohort / f"slides/{slide_of(case)}.tiff"))
    assert (found.case, found.truth) == (slide_of(case), {"label": ""})
    assert_same_scores(found, row)


def test_features_are_predicted_as_in_the_test(feature_run: Path) -> None:
    model = load_model(feature_run, device="cpu")
    for case, row in rows_of(feature_run).items():
        found = model.predict(feature_run.parent / f"features/{case}.pt")
        assert_same_scores(found, row)
        assert (found.patches.coords == -1).all()


def test_slides_of_one_case_are_one_bag(slide_run: Path, cohort: Path, stores: Path) -> None:
    model, names = load_model(slide_run, device="cpu"), ["slide-005", "slide-001"]
    found = model.predict([stores / f"{name}.zarr" for name in names])
    sizes = [PatchStore(stores / f"{name}.zarr").num_patches(0) for name in names]
    assert found.patches.slides.tolist() == [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    coords = np.concatenate([PatchStore(stores / f"{name}.zarr").coords(0) for name in names])
    np.testing.assert_array_equal(found.patches.coords, coords)
    assert found.patches.attention.shape == (4, sum(sizes))
    np.testing.assert_allclose(found.patches.attention.sum(axis=1), 1, rtol=1e-5)
    alone = [model.predict(stores / f"{name}.zarr").scores for name in names]
    assert found.scores not in alone
    raw = model.predict([cohort / f"slides/{name}.tiff" for name in names])
    assert raw.scores == found.scores


def test_other_input_is_refused(slide_run: Path, feature_run: Path, stores: Path) -> None:
    features, store = feature_run.parent / "features/s01.pt", stores / "slide-001.zarr"
    with pytest.raises(InputError, match="features"):
        load_model(feature_run, device="cpu").predict(store)
    with pytest.raises(InputError, match=r"the model takes patches of 64 px at 0\.5 µm/px.*s01\.pt holds features"):
        load_model(slide_run, device="cpu").predict(features)


def test_settings_of_torch_are_restored(slide_run: Path, stores: Path) -> None:
    model = load_model(slide_run, device="cpu")
    assert model.contract.precision == "bf16-mixed"
    task = model.tasks[0]
    task._contract = replace(model.contract, model={**model.contract.model, "matmul_precision": "high"})
    seen, before = [], torch.get_float32_matmul_precision()
    attend = task.head.attend

    def watched(*args: torch.Tensor) -> object:
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(), torch.is_grad_enabled()))
        return attend(*args)

    task.head.attend = watched  # type: ignore[method-assign]
    model.predict(stores / "slide-001.zarr")
    assert set(seen) == {(True, "high", False)}
    assert torch.get_float32_matmul_precision() == before
    assert not torch.is_autocast_enabled("cpu")

    def broken(*_: object) -> object:
        raise RuntimeError("out of memory")

    task.head.attend = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        model.predict(stores / "slide-001.zarr")
    assert torch.get_float32_matmul_precision() == before
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()


def test_the_patches_of_a_case_are_dropped_with_the_next(slide_run: Path, stores: Path) -> None:
    model = load_model(slide_run, device="cpu")
    kept: list[weakref.ref[torch.Tensor]] = []
    encode = model.tasks[0].encode

    def watched(bag: object) -> torch.Tensor:
        features = encode(bag)  # type: ignore[arg-type]
        kept.extend((weakref.ref(bag.patches), weakref.ref(features)))  # type: ignore[attr-defined]
        return features

    model.tasks[0].encode = watched  # type: ignore[method-assign]
    bags = bags_of([Case(name, (name,)) for name in ("slide-001", "slide-002", "slide-003")], stores, model.contract)
    alive = []
    for _ in model.predict_cases(bags, threads=1):
        alive.append(sum(one() is not None for one in kept))
    assert len(kept) == 6
    assert alive[0] == alive[-1] <= 2


def test_a_case_that_cannot_be_read_does_not_stop_the_others(slide_run: Path, stores: Path, tmp_path: Path) -> None:
    model = load_model(slide_run, device="cpu")
    names = ["slide-001", "slide-002", "slide-003"]
    for name in names:
        shutil.copytree(stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    small = replace(model.contract, input=replace(model.contract.input, eval_chunk_size=8))  # several parts per slide
    bags = bags_of([Case("two", ("slide-001", "slide-002")), Case("one", ("slide-003",))], tmp_path, small)
    for path in (tmp_path / "slide-002.zarr").glob("?/patches/c.*"):
        path.write_bytes(path.read_bytes()[:-9])
    failed, found = list(model.predict_cases(bags))
    assert isinstance(failed, InputError)
    assert "slide-002" in str(failed)
    assert isinstance(found, CasePrediction)
    whole = bags_of([Case("one", ("slide-003",))], stores, small)
    (alone,) = model.predict_cases(whole)
    assert isinstance(alone, CasePrediction)
    assert found.scores == alone.scores
    assert found.case == "one"


def test_an_ensemble_is_the_mean_of_its_members(feature_run: Path, second_feature_run: Path) -> None:
    both = load_model([feature_run, second_feature_run], device="cpu")
    single = [load_model(run, device="cpu") for run in (feature_run, second_feature_run)]
    path = feature_run.parent / "features/s20.pt"
    found, members = both.predict(path), [model.predict(path).scores for model in single]
    assert found.members == tuple(members)
    assert members[0] != members[1]
    for name in ("probability_0", "probability_1"):
        low, high = sorted(member[name] for member in members)
        assert found.scores[name] == pytest.approx((low + high) / 2, abs=1e-12)
        assert found.std[name] == pytest.approx((high - low) / 2**0.5)
        assert (found.row()[f"min_{name}"], found.row()[f"max_{name}"]) == (low, high)
    thresholds = [model.threshold for model in single]
    assert None not in thresholds
    assert both.threshold == pytest.approx(sum(filter(None, thresholds)) / 2)
    assert found.patches.attention.shape[0] == 2  # one head of each
    np.testing.assert_allclose(found.patches.attention.sum(axis=1), 1, rtol=1e-5)


def test_survival_models_with_other_time_edges_are_an_ensemble(survival_run: Path, stores: Path) -> None:
    one, other = task_of(survival_run), task_of(survival_run)
    assert isinstance(other, SurvivalTask)
    other.time_edges = (99.5,)
    assert other._contract is not None
    other._contract = replace(other._contract, time_edges=(99.5,))
    found = Model([one, other], device="cpu").predict(stores / "slide-001.zarr")
    assert "survival_99.5" in found.members[1]
    assert list(found.scores) == ["risk"]
    assert found.risk == pytest.approx(found.members[0]["risk"])
    assert found.survival == {}
    same = Model([one, task_of(survival_run)], device="cpu").predict(stores / "slide-001.zarr")
    assert len(same.survival) == 1
    assert same.std["risk"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("1", "0")}, r"the model's classes are \['0', '1'\], in this order"),
        ({"target": "survival"}, "the model was trained on the target label, and .* is survival"),
        ({"input": FeatureInput(9)}, r"8 features per patch.*9 features per patch"),
    ],
)
def test_members_that_do_not_fit_are_refused(feature_run: Path, change: dict[str, object], message: str) -> None:
    other = task_of(feature_run)
    assert other._contract is not None
    other._contract = replace(other._contract, **change)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=message):
        Model([task_of(feature_run), other])


def test_tasks_that_were_not_trained_are_refused(feature_run: Path) -> None:
    for tasks in ([], ClassificationTask(Precomputed(8), MeanPool, 2)):
        with pytest.raises(InputError, match="a model needs tasks that were trained"):
            Model(tasks)
    with pytest.raises(InputError, match="'gpu' cannot be used"):
        load_model(feature_run, device="gpu")


def test_a_task_that_was_just_loaded_in_training_mode_is_evaluated(feature_run: Path) -> None:
    task = task_of(feature_run).train()
    path = feature_run.parent / "features/s20.pt"
    assert Model(task, device="cpu").predict(path).scores == load_model(feature_run, device="cpu").predict(path).scores


def test_heatmaps_of_a_case(slide_run: Path, stores: Path, tmp_path: Path) -> None:
    model = load_model(slide_run, device="cpu")
    found = model.predict([stores / "slide-001.zarr", stores / "slide-005.zarr"])
    model.write_heatmaps(found, stores, tmp_path, "contribution")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slide-001", "slide-005"]
    for name in ("slide-001", "slide-005"):
        assert (tmp_path / name / "contribution.ome.zarr").is_dir()
