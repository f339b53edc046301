"""Training straight from a bucket: the same bags and predictions as from a local copy, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from local_bucket import FaultProxy, download
from slide_runs import message_of, write_slide_config

from e2e_abmilx.cache.push import push
from e2e_abmilx.data.bag import Bag, BagError
from e2e_abmilx.data.draws import RunDraw
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.store import objects
from e2e_abmilx.store.locations import ObjectUrl

TO = ObjectUrl("s3://cohorts/lesions")


@pytest.fixture
def pushed(bucket: FaultProxy, stores: Path) -> FaultProxy:
    """The bucket with the stores of the synthetic cohort."""
    assert push(stores, TO) == []
    bucket.requests.clear()
    return bucket


def ready(cohort: Path, cache: str | Path, **how: Any) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 8, "batch_size": 2, "num_workers": 0, **how}
    data = SlideDataModule(cache, cohort / "labels.csv", **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def same(one: Bag, other: Bag) -> bool:
    pairs = zip(one, other, strict=True)
    # the months of these cases are unknown, NaN
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_bags_are_those_of_a_local_copy(pushed: FaultProxy, cohort: Path, tmp_path: Path, workers: int) -> None:
    draw = RunDraw(4)
    local = ready(cohort, download(TO, tmp_path), draw=draw)
    remote = ready(cohort, TO, draw=draw, num_workers=workers)
    for name in ("train", "val"):
        loaders = [getattr(data, f"{name}_dataloader")() for data in (local, remote)]
        batches = [list(loader) for loader in loaders]
        assert len(batches[0]) == len(batches[1]) > 1
        assert all(same(one, other) for one, other in zip(*batches, strict=True))


def test_setting_up_takes_few_requests(pushed: FaultProxy, cohort: Path) -> None:
    data = ready(cohort, TO, draw=RunDraw(4))
    assert len(data.cases["train"]) > 5
    data.train_dataloader()
    data.val_dataloader()
    indexes = [request for request in pushed.gets() if request.path.endswith("stores.index")]
    assert len(indexes) == 1
    assert len(pushed.gets()) - len(indexes) <= 2  # stores that are opened, of 24


def test_patches_of_bags_and_cases_come_row_by_row(pushed: FaultProxy, cohort: Path, stores: Path) -> None:
    """As from a local cache, so that heads to which the order matters see what they were trained on."""
    local, remote = ready(cohort, stores), ready(cohort, TO)
    for bag in remote.train_dataloader():
        for coords, scale in zip(bag.coords, bag.scale, strict=True):
            keys = np.stack([scale, coords[:, 1], coords[:, 0]], 1)[bag.mask[0]]
            assert (keys == keys[np.lexsort(keys.T[::-1])]).all()
    of_case: dict[str, dict[str, list[torch.Tensor]]] = {"local": {}, "remote": {}}
    for name, data in (("local", local), ("remote", remote)):
        bags = WholeSlides(data.cases["all"], data.targets.get("all") or [], data.cache, chunk_size=3, scales="all")
        bags.targets = [data.targets["train"][0]] * len(data.cases["all"])
        for number in range(40):
            bag = bags[number]
            ranked = bag.coords if bag.order is None else torch.cat([bag.order[:, None], bag.coords], 1)
            of_case[name].setdefault(bag.cases[0], []).append(ranked)
    for case in list(of_case["remote"])[:-1]:  # the last one may be incomplete
        ranked = torch.cat(of_case["remote"][case])
        assert torch.equal(ranked[ranked[:, 0].argsort()][:, 1:], torch.cat(of_case["local"][case]))
        assert sorted(ranked[:, 0].tolist()) == list(range(len(ranked)))


def test_predictions_equal_those_of_a_local_copy_bit_for_bit(pushed: FaultProxy, cohort: Path, tmp_path: Path) -> None:
    """With a head to which the order of patches matters."""
    tables = []
    for name, cache in (("local", str(download(TO, tmp_path / "copy"))), ("remote", str(TO))):
        (tmp_path / name).mkdir()
        path = write_slide_config(tmp_path / name, cohort, Path("."))
        config = yaml.safe_load(path.read_text())
        config["data"]["init_args"] |= {
            "cache": cache,
            "draw": {"class_path": "RunDraw", "init_args": {"run_length": 2}},
        }
        config["trainer"]["max_epochs"] = 1
        config["model"]["init_args"]["head"] = {"class_path": "TransMIL", "init_args": {"hidden_features": 32}}
        path.write_text(yaml.safe_dump(config))
        main(["fit", "--config", str(path)])
        tables.append(pd.read_csv(tmp_path / name / "run" / "predictions.csv"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    saved = (tmp_path / "remote" / "run" / "fit.yaml").read_text()
    assert f"cache: {TO}" in saved
    assert "test-secret" not in saved


def test_a_flaky_bucket_changes_nothing(pushed: FaultProxy, cohort: Path) -> None:
    sound = list(ready(cohort, TO, draw=RunDraw(4)).train_dataloader())
    numbers = iter(range(10**6))
    faults = ("503", "cut", "short", "flip", "429", "500")
    pushed.fault = lambda method, path: faults[number // 5 % 6] if (number := next(numbers)) % 5 == 0 else None
    flaky = list(ready(cohort, TO, draw=RunDraw(4)).train_dataloader())
    assert all(same(one, other) for one, other in zip(sound, flaky, strict=True))


def test_a_local_cache_changes_no_bag_and_saves_requests(pushed: FaultProxy, cohort: Path, tmp_path: Path) -> None:
    def bags(**how: Any) -> list[Bag]:
        return list(ready(cohort, TO, draw=RunDraw(4), **how).train_dataloader())

    expected = bags()
    first = bags(local_cache=tmp_path, num_workers=2)
    pushed.requests.clear()
    again = bags(local_cache=tmp_path)
    assert all(same(*three[:2]) and same(*three[1:]) for three in zip(expected, first, again, strict=True))
    assert not [request for request in pushed.gets() if "/patches/" in request.path]


def test_refusals(pushed: FaultProxy, cohort: Path, stores: Path) -> None:
    with pytest.raises(BagError, match="lie row by row"):
        ready(cohort, stores, draw=RunDraw()).train_dataloader()
    with pytest.raises(InputError, match=r"data.slides cannot be cached straight into s3://.*e2e-abmilx push"):
        ready(cohort, TO, slides=cohort / "slides")
    with pytest.raises(
        InputError, match=r"data.local_cache keeps what is read from a bucket, and data.cache is the folder"
    ):
        ready(cohort, stores, local_cache=stores / "kept")
    with pytest.raises(InputError, match=r"data.local_cache_gb is 0; it is a size in GB and must be at least 1"):
        ready(cohort, TO, local_cache=stores / "kept", local_cache_gb=0)
    with pytest.raises(InputError, match="holds no patch store"):
        ready(cohort, TO.parent / "nothing")
    pushed.fault = lambda method, path: "expired"
    with pytest.raises(objects.AccessError, match="renew them"):
        ready(cohort, TO)


def test_a_password_in_the_cache_is_not_repeated(cohort: Path, tmp_path: Path) -> None:
    path = write_slide_config(tmp_path, cohort, Path("s3://user:hunter2@cohorts/lesions"))
    message = message_of(["fit", "--config", str(path)])
    assert "user name or password" in message
    assert "hunter2" not in message
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
