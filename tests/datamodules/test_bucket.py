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
from e2e_abmilx.data.draws import RegionalDraw, RunDraw
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore, StoreWriter, objects
from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError
from e2e_abmilx.store.object_scale import BLOCK

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


def test_regions_take_few_requests_before_the_first_bag(pushed: FaultProxy, cohort: Path) -> None:
    data = ready(cohort, TO, draw=RegionalDraw(2))
    pushed.requests.clear()
    data.train_dataloader()
    assert len(pushed.gets()) <= 2  # of 12 stores


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
    kept = [f"--data.local_cache={tmp_path / 'disk'}", "--data.local_cache_gb=1"]
    copy = str(download(TO, tmp_path / "copy"))
    for name, cache, options in (("local", copy, []), ("remote", str(TO), []), ("kept", str(TO), kept)):
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
        main(["fit", "--config", str(path), *options])
        tables.append(pd.read_csv(tmp_path / name / "run" / "predictions.csv"))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, check_exact=True)
    saved = (tmp_path / "kept" / "run" / "fit.yaml").read_text()
    assert f"cache: {TO}" in saved
    assert f"local_cache: {tmp_path / 'disk'}" in saved
    assert list((tmp_path / "disk").glob("*/used"))
    assert "test-secret" not in saved


def test_a_flaky_bucket_changes_nothing(pushed: FaultProxy, cohort: Path) -> None:
    sound = list(ready(cohort, TO, draw=RunDraw(4)).train_dataloader())
    numbers = iter(range(10**6))
    faults = ("503", "cut", "short", "flip", "429", "500")
    pushed.fault = lambda method, path: faults[number // 5 % 6] if (number := next(numbers)) % 5 == 0 else None
    flaky = list(ready(cohort, TO, draw=RunDraw(4)).train_dataloader())
    assert all(same(one, other) for one, other in zip(sound, flaky, strict=True))


def test_renewed_credentials_are_used_by_all_processes(
    pushed: FaultProxy, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the fork server and the client were started with the old ones, as in a notebook."""
    list(ready(cohort, TO, draw=RunDraw(4), num_workers=1).train_dataloader())
    pushed.fault = lambda method, path: "expired"
    with pytest.raises(AccessError, match="renew them"):
        ready(cohort, TO)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    pushed.fault = lambda method, path: None
    pushed.requests.clear()
    list(ready(cohort, TO, draw=RunDraw(4), num_workers=1).train_dataloader())
    assert {request.key for request in pushed.gets()} == {"renewed"}


def test_a_local_cache_changes_no_bag_and_saves_requests(pushed: FaultProxy, cohort: Path, tmp_path: Path) -> None:
    def bags(**how: Any) -> list[Bag]:
        data = ready(cohort, TO, draw=RunDraw(4), local_cache_gb=1, **how)
        return [*data.train_dataloader(), *data.val_dataloader()]

    expected = bags()
    first = bags(local_cache=tmp_path / "disk", num_workers=2)
    pushed.requests.clear()
    again = bags(local_cache=tmp_path / "disk")
    assert all(same(*three[:2]) and same(*three[1:]) for three in zip(expected, first, again, strict=True))
    assert not [request for request in pushed.gets() if "/patches/" in request.path]


def test_a_store_that_was_replaced_is_not_read_from_the_local_cache(
    pushed: FaultProxy, cohort: Path, stores: Path, tmp_path: Path
) -> None:
    slide = min(path.stem for path in stores.glob("*.zarr"))
    disk, store = DiskCache(tmp_path / "disk", 10**9), TO / f"{slide}.zarr"
    old = PatchStore(store, disk)
    before = old.read(range(old.num_patches()))  # of the finest scale
    with StoreWriter(tmp_path / "other" / f"{slide}.zarr", old.scales, patch_size=64) as writer:
        for scale in range(len(old.scales)):
            patches = PatchStore(store).read(range(old.num_patches(scale)), scale)
            writer.write(255 - patches, old.coords(scale), scale)
    for name in [entry["path"] for page in objects.client(store).list(None) for entry in page]:
        objects.client(store).delete(name)
    assert push(tmp_path / "other", TO) == []
    pushed.objects.clear()  # the proxy does not see deletions
    forget_objects()
    new = PatchStore(store, disk)
    found = new.read(range(new.num_patches()))
    assert found.shape == before.shape
    assert (found == PatchStore(store).read(range(new.num_patches()))).all()
    assert (found != before).any()
    kept = [path for path in disk.folder.glob("*/*") if path.name != "used"]
    assert len(kept) == 2 * -(-len(before) // BLOCK)  # each has its own entries


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_cache_gb": 0}, r"data.local_cache_gb is 0; it must be at least 1, because each of 64 parts"),
        ({"local_cache_gb": float("nan")}, "data.local_cache_gb is nan; it must be at least 1"),
        ({"local_cache_gb": 1e9}, r"and at most \d+, the size of the disk of /"),
        ({"local_cache": "s3://cohorts/kept"}, "data.local_cache is s3://cohorts/kept; it must be a folder on a local"),
        ({"local_cache": "stores"}, r"data.local_cache is .*stores, in the cache of patch stores .*stores; give"),
        ({"local_cache": "stores/kept"}, r"stores/kept, in the cache of patch stores .*stores; give another"),
        ({"local_cache": "slides"}, "slides holds files and is not a local cache; .* give a new or an empty folder"),
        ({"local_cache": "labels.csv"}, r"labels.csv cannot be a local cache \(Not a directory\); give another folder"),
        ({"cache": "stores"}, "data.local_cache keeps what is read from a bucket, and data.cache is the folder"),
    ],
)  # fmt: skip
def test_local_caches_are_refused_before_anything_is_read(
    cohort: Path, stores: Path, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cohort)
    names = sorted(cohort.rglob("*"))
    where = Path(settings.pop("local_cache", "new"))
    with pytest.raises(InputError, match=message):
        SlideDataModule(settings.pop("cache", TO), cohort / "labels.csv", local_cache=where, **settings)
    assert sorted(cohort.rglob("*")) == names


def test_refusals(pushed: FaultProxy, cohort: Path, stores: Path) -> None:
    with pytest.raises(BagError, match="lie row by row"):
        ready(cohort, stores, draw=RunDraw()).train_dataloader()
    with pytest.raises(InputError, match=r"e2e-abmilx cache --slides .* --out s3://cohorts/\S+` first"):
        ready(cohort, TO, slides=cohort / "slides")
    with pytest.raises(InputError, match="holds no patch store"):
        ready(cohort, TO.parent / "nothing")
    pushed.fault = lambda method, path: "expired"
    with pytest.raises(AccessError, match="renew them"):
        ready(cohort, TO)


def test_the_message_is_that_of_the_fault_alone(cohort: Path, tmp_path: Path) -> None:
    path = write_slide_config(tmp_path, cohort, Path("stores"))
    assert message_of(["fit", "--config", str(path), "--data.cache", "s3//b/x"]).startswith("error: a URL begins with")
    words = ["--data.draw", "RunDraw", "--data.draw.run_length", "0"]
    message = message_of(["fit", "--config", str(path), *words])
    assert message == "error: run_length is 0; it counts patches and must be at least 1"


def test_a_password_in_the_cache_is_not_repeated(cohort: Path, tmp_path: Path) -> None:
    path = write_slide_config(tmp_path, cohort, Path("s3://user:hunter2@cohorts/lesions"))
    message = message_of(["fit", "--config", str(path)])
    assert "user name or password" in message
    assert "hunter2" not in message
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
