import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.data.inputs import FeatureInput, ModelInput, PatchInput, input_as_json, input_from_json, same_mpp
from e2e_abmilx.store import PatchStore, write_store

_MPP = st.floats(0.01, 100)
_PATCHES = st.builds(
    PatchInput,
    st.lists(st.none() | _MPP, min_size=1, max_size=3).map(tuple),
    st.integers(1, 4096),
    st.sampled_from(["finest", "all"]),
    st.integers(1, 999),
    st.none() | st.floats(0, 0.9),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(1, 100),
)
_FEATURES = st.builds(FeatureInput, st.integers(1, 4096), st.none() | st.text(min_size=1), st.none() | _MPP)


def _refusal(model: ModelInput, data: ModelInput) -> str:
    """Return why data are refused; empty if they are not."""
    return "; ".join(model.differences(data))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.5, 0.525, True),
        (0.5, 0.5251, False),
        (0.5, 0.4762, True),
        (0.5, 0.4761, False),
        (0.2, 0.21, True),  # 0.21 - 0.2 is above 5 % of 0.2 in binary numbers
        (0.25, 0.2525, True),
        (0.25, 0.5, False),  # 40x and 20x
    ],
)
def test_resolutions_may_differ_by_5_percent(one: float, other: float, same: bool) -> None:
    assert same_mpp(one, other) is same_mpp(other, one) is same
    assert (_refusal(PatchInput((one,), 64), PatchInput((other,), 64)) == "") is same
    assert (_refusal(FeatureInput(8, mpp=one), FeatureInput(8, mpp=other)) == "") is same


@given(_MPP, st.floats(1, 1.05))
def test_the_tolerance_is_symmetric(mpp: float, factor: float) -> None:
    assert same_mpp(mpp, mpp * factor)
    assert same_mpp(mpp * factor, mpp)


def test_a_40x_cache_is_refused_for_a_20x_model() -> None:
    refusal = _refusal(PatchInput((0.5, 1.0), 224), PatchInput((0.25, 0.5), 224))
    assert "the model takes patches of 224 px at 0.5 µm/px (side 112 µm)" in refusal
    assert "the cache has patches of 224 px at 0.25 µm/px (side 56 µm)" in refusal
    assert "e2e-abmilx cache --mpp [0.5,1] --patch_size 224" in refusal


def test_the_command_of_a_refusal_makes_a_cache_that_fits() -> None:
    model = PatchInput((0.5, 2.0), 96)
    cure = re.search(r"--mpp \[([\d.,]+)\] --patch_size (\d+)", _refusal(model, PatchInput((0.5,), 256)))
    assert cure is not None
    made = PatchInput(tuple(map(float, cure[1].split(","))), int(cure[2]))
    assert _refusal(model, made) == ""


def test_the_side_of_patches_must_be_equal() -> None:
    refusal = _refusal(PatchInput((0.5,), 256), PatchInput((0.5,), 224))
    assert "patches of 256 px" in refusal
    assert "patches of 224 px" in refusal


def test_coarser_scales_matter_only_if_they_are_evaluated() -> None:
    finest = PatchInput((0.5, 1.0), 64)
    every = finest.of_all_scales()
    for mpp in ((0.5,), (0.5, 2.0), (0.5, None), (0.5, 1.0, 2.0)):
        cache = PatchInput(mpp, 64)
        assert _refusal(finest, cache) == ""
        refusal = _refusal(every, cache.of_all_scales())
        assert "0.5 µm/px (side 32 µm) and 1 µm/px (side 64 µm)" in refusal
    assert _refusal(every, dataclasses.replace(every, mpp=(0.51, 1.04))) == ""


def test_other_evaluated_scales_are_refused_by_the_option() -> None:
    finest, every = PatchInput((0.5, 1.0), 64), PatchInput((0.5, 1.0), 64, "all")
    assert re.search(
        r"validated on scales 'finest', and data\.eval_scales is 'all'.*set it to finest", _refusal(finest, every)
    )
    assert re.search(
        r"validated on scales 'all', and data\.eval_scales is 'finest'.*set it to all", _refusal(every, finest)
    )


def test_patches_of_unknown_resolution() -> None:
    known, unknown = PatchInput((0.5,), 64), PatchInput((None,), 64)
    assert "unknown µm/px" in _refusal(known, unknown)  # the model needs 0.5, which these may not have
    assert not list(known.unknowns(unknown))
    for patches in (known, unknown):
        assert _refusal(unknown, patches) == ""
        (note,) = unknown.unknowns(patches)
        assert "is unknown, so that of these is not checked" in note
    assert _refusal(unknown, PatchInput((0.5,), 128))


def test_how_patches_were_cut_is_recorded_and_not_compared() -> None:
    model = PatchInput((0.5,), 64, "finest", 256, 0.0, 0.5, 85)
    assert _refusal(model, PatchInput((0.5,), 64, "finest", 32, 0.5, 0.1, None)) == ""


def test_features_differ_in_width() -> None:
    refusal = _refusal(FeatureInput(1024, "uni", 0.5), FeatureInput(1536, "uni2", 0.5))
    assert "1024 features per patch of encoder uni at 0.5 µm/px" in refusal
    assert "1536 features per patch of encoder uni2 at 0.5 µm/px" in refusal
    assert "extract features with the encoder" in refusal
    assert _refusal(FeatureInput(1024), FeatureInput(1023))


def test_features_of_one_width_differ_in_encoder_or_resolution() -> None:
    model = FeatureInput(1024, "uni", 0.5)
    assert "encoder conch" in _refusal(model, FeatureInput(1024, "conch", 0.5))
    assert "0.25 µm/px" in _refusal(model, FeatureInput(1024, "uni", 0.25))
    assert _refusal(model, FeatureInput(1024, "uni", 0.52)) == ""


def test_what_features_do_not_state_is_accepted_with_a_note() -> None:
    stated, silent = FeatureInput(8, "uni", 0.5), FeatureInput(8)
    assert _refusal(stated, silent) == _refusal(silent, stated) == _refusal(silent, silent) == ""
    assert "the encoder of these features is not stated" in next(stated.unknowns(silent))
    assert "the encoder of the model's features is not stated" in next(silent.unknowns(stated))
    assert not list(stated.unknowns(stated))


def test_patches_and_features_do_not_replace_each_other() -> None:
    patches, features = PatchInput((0.5,), 64), FeatureInput(8, "uni")
    assert "use a SlideDataModule" in _refusal(patches, features)
    assert "use a FeatureDataModule" in _refusal(features, patches)
    for refusal in (_refusal(patches, features), _refusal(features, patches)):
        assert "patches of 64 px" in refusal
        assert "8 features per patch of encoder uni" in refusal
    assert not list(patches.unknowns(features))
    assert not list(features.unknowns(patches))


@given(_PATCHES | _FEATURES)
def test_json_keeps_every_input(described: ModelInput) -> None:
    text = json.dumps(input_as_json(described), allow_nan=False)
    assert input_from_json(json.loads(text)) == described


@given(_PATCHES | _FEATURES)
def test_a_model_takes_its_own_input(described: ModelInput) -> None:
    assert _refusal(described, described) == ""


def test_no_input_is_null() -> None:
    assert input_as_json(None) is None
    assert input_from_json(None) is None


def test_the_kind_is_part_of_the_json() -> None:
    assert input_as_json(PatchInput((0.5, None), 64)) == {
        "kind": "patches", "mpp": [0.5, None], "patch_size": 64, "eval_scales": "finest", "eval_chunk_size": 256,
        "overlap": None, "min_tissue": None, "quality": None,
    }  # fmt: skip
    assert input_as_json(FeatureInput(8)) == {"kind": "features", "num_features": 8, "encoder": None, "mpp": None}


def test_the_input_of_a_store(stores: Path) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    described = PatchInput.of(store, "all", 7)
    assert (described.mpp, described.patch_size) == ((0.5, 1.0), 64)
    assert (described.eval_scales, described.eval_chunk_size) == ("all", 7)
    tiling = store.attributes["tiling"]
    assert (described.overlap, described.min_tissue, described.quality) == tuple(
        tiling[name] for name in ("overlap", "min_tissue", "quality")
    )


def test_the_input_of_an_imported_store_without_resolution(tmp_path: Path) -> None:
    write_store(tmp_path / "own.zarr", {float("nan"): (np.zeros((2, 8, 8, 3), np.uint8), None)})
    described = PatchInput.of(PatchStore(tmp_path / "own.zarr"), "finest", 256)
    assert described == PatchInput((None,), 8)
    assert input_from_json(json.loads(json.dumps(input_as_json(described), allow_nan=False))) == described
