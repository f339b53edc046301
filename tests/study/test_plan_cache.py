import re
import shutil
from pathlib import Path

import pytest
from plans import read_slides, write_features

from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore, cohort_index
from e2e_abmilx.study.plan_cache import SAMPLE, CachePlan, plan_cache
from e2e_abmilx.study.plan_cohort import read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config


def _plan(config: Config) -> CachePlan:
    return plan_cache(config.data, read_planned_cohort(config.data))


def test_an_existing_cache_is_counted(tmp_path: Path, cohort: Path, stores: Path) -> None:
    found = _plan(read_slides(tmp_path, cohort, stores))
    store = PatchStore(stores / "slide-003.zarr")
    assert found.patches["slide-003"] == (store.num_patches(0), store.num_patches(1))
    assert (found.stored, found.to_cache, found.new_bytes, found.side) == (24, 0, 0, 64)
    assert found.is_complete
    files = [file for path in stores.glob("*.zarr") for file in path.rglob("*") if file.is_file()]
    assert found.bytes == sum(file.stat().st_size for file in files)


def test_nothing_is_written(tmp_path: Path, cohort: Path, stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cohort_index, "SETTLED_NS", -(10**9)
    )  # a command that may write would index these stores at once
    shutil.copytree(stores / "slide-000.zarr", tmp_path / "cache/slide-000.zarr")
    _plan(read_slides(tmp_path, cohort, tmp_path / "cache", f"--data.slides={cohort}/slides", "--data.patch_size=64"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["slide-000.zarr"]


def test_slides_that_are_not_cached_are_estimated_from_a_sample(tmp_path: Path, cohort: Path, stores: Path) -> None:
    words = [f"--data.slides={cohort}/slides", "--data.patch_size=64", "--data.num_workers=2"]
    found = _plan(read_slides(tmp_path, cohort, tmp_path / "cache", *words))
    assert not (tmp_path / "cache").exists()
    made = _plan(read_slides(tmp_path, cohort, stores))
    assert (found.stored, found.to_cache, found.sampled, found.failed) == (0, 24, SAMPLE, ())
    assert len(found.patches) == 24
    assert sum(map(sum, found.patches.values())) == pytest.approx(sum(map(sum, made.patches.values())), rel=0.2)
    sampled = [name for name, counts in found.patches.items() if counts == made.patches[name]]
    assert len(sampled) >= SAMPLE
    assert found.hours > 0
    assert found.new_bytes == found.bytes > 0


def test_a_cache_that_has_begun(tmp_path: Path, cohort: Path, stores: Path) -> None:
    shutil.copytree(stores / "slide-000.zarr", tmp_path / "cache/slide-000.zarr")
    words = [f"--data.slides={cohort}/slides", "--data.patch_size=64"]
    found = _plan(read_slides(tmp_path, cohort, tmp_path / "cache", *words))
    assert (found.stored, found.to_cache) == (1, 23)
    assert 0 < found.new_bytes < found.bytes
    assert not found.is_complete


@pytest.mark.parametrize(
    ("option", "found"),
    [("patch_size=32", "patch_size was 64 and is now 32"), ("mpp=[4.0]", "mpp was"), ("assume_mpp=0.3", "assume_mpp")],
)
def test_stores_that_a_fit_would_refuse_are_refused(
    tmp_path: Path, cohort: Path, stores: Path, option: str, found: str
) -> None:
    words = [f"--data.slides={cohort}/slides", "--data.patch_size=64", f"--data.{option}"]
    with pytest.raises(InputError, match=re.escape(found)):
        _plan(read_slides(tmp_path, cohort, stores, *words))


def test_features_are_counted(tmp_path: Path) -> None:
    found = _plan(read_config(write_features(tmp_path)))
    assert found.patches["s0"] == (3,)
    assert found.patches["s11"] == (14,)
    assert found.side is None
    assert found.is_complete


def test_a_slide_that_cannot_be_cut_is_named(tmp_path: Path, cohort: Path) -> None:
    words = [f"--data.slides={cohort}/slides", "--data.patch_size=64", "--data.mpp=[40.0]"]
    found = _plan(read_slides(tmp_path, cohort, tmp_path / "none", *words))
    assert len(found.failed) == SAMPLE
    assert "slide-0" in found.failed[0]
    assert found.patches == {}
