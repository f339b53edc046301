"""The input of a model: patches of a size and resolution, or features of an encoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from e2e_abmilx.store import PatchStore

#: Largest relative difference between two µm per pixel that count as equal.
MPP_TOLERANCE = 0.05

EvalScales = Literal["finest", "all"]


@dataclass(frozen=True)
class PatchInput:
    """Patches of cached slides.

    Attributes:
        mpp: µm per pixel of each scale, finest first; None where the cache does not state it.
        patch_size: Side of a patch, pixels.
        eval_scales: Scales used in evaluation.
        eval_chunk_size: Patches encoded at once in evaluation; another number changes scores in their last digits.
        overlap: Fraction of a patch that neighbours have in common; None if the patches were imported.
        min_tissue: Smallest fraction of tissue in a patch; None if the patches were imported.
        quality: JPEG quality of the cache; None if the patches were imported.
    """

    mpp: tuple[float | None, ...]
    patch_size: int
    eval_scales: EvalScales = "finest"
    eval_chunk_size: int = 256
    overlap: float | None = None
    min_tissue: float | None = None
    quality: int | None = None

    @classmethod
    def of(cls, store: PatchStore, eval_scales: EvalScales, eval_chunk_size: int) -> Self:
        """Describe the patches of a store."""
        tiling = store.attributes.get("tiling") or {}
        return cls(
            tuple(None if math.isnan(mpp) else mpp for mpp in store.scales),
            store.patch_size,
            eval_scales,
            eval_chunk_size,
            *(tiling.get(name) for name in ("overlap", "min_tissue", "quality")),
        )

    @property
    def evaluated_mpp(self) -> tuple[float | None, ...]:
        """µm per pixel of the scales used in evaluation."""
        return self.mpp[:1] if self.eval_scales == "finest" else self.mpp

    def of_all_scales(self) -> "PatchInput":
        """Return the input of training, which draws patches from all scales."""
        return replace(self, eval_scales="all")

    def differences(self, given: "ModelInput") -> Iterator[str]:
        """Yield what keeps a model of this input from evaluating other patches, each with both values and the cure."""
        if not isinstance(given, PatchInput):
            yield f"the model takes {self}, and the data are {given}; use a SlideDataModule, or a cache of patches"
            return
        if given.eval_scales != self.eval_scales and len(given.evaluated_mpp) != len(self.evaluated_mpp):
            yield (
                f"the model was validated on scales {self.eval_scales!r}, and data.eval_scales is {given.eval_scales!r};"
                f" set it to {self.eval_scales}, or fit with the other"
            )
        elif given.patch_size != self.patch_size or not self._has_scales_of(given):
            scales = "" if None in self.mpp else f" --mpp [{','.join(f'{mpp:g}' for mpp in self.mpp)}]"
            yield (
                f"the model takes {self}, and the cache has {given}; cache the slides for this model: e2e-abmilx cache"
                f"{scales} --patch_size {self.patch_size}"
            )

    def unknowns(self, given: "ModelInput") -> Iterator[str]:
        """Yield what cannot be compared, because the model does not know it of its own input."""
        if isinstance(given, PatchInput) and None in self.evaluated_mpp:
            yield "the µm/px of the patches that the model was trained on is unknown, so that of these is not checked"

    def _has_scales_of(self, given: "PatchInput") -> bool:
        ours, theirs = self.evaluated_mpp, given.evaluated_mpp
        return len(ours) == len(theirs) and all(map(_same_mpp, ours, theirs))

    def __str__(self) -> str:
        scales = " and ".join(
            "unknown µm/px" if mpp is None else f"{mpp:g} µm/px (side {mpp * self.patch_size:g} µm)"
            for mpp in self.evaluated_mpp
        )
        return f"patches of {self.patch_size} px at {scales}"


@dataclass(frozen=True)
class FeatureInput:
    """Extracted features.

    Attributes:
        num_features: D, features per patch.
        encoder: Description of the encoder, as the files state it; None where they do not.
        mpp: µm per pixel of the patches that the encoder saw; None where unknown.
    """

    num_features: int
    encoder: str | None = None
    mpp: float | None = None

    def differences(self, given: "ModelInput") -> Iterator[str]:
        """Yield what keeps a model of this input from evaluating other features, each with both values and the cure."""
        if not isinstance(given, FeatureInput):
            yield f"the model takes {self}, and the data are {given}; use a FeatureDataModule, or a folder of features"
            return
        encoders_differ = None not in (self.encoder, given.encoder) and self.encoder != given.encoder
        if given.num_features != self.num_features or encoders_differ or not _may_be_same_mpp(self.mpp, given.mpp):
            yield (
                f"the model takes {self}, and the files have {given}; extract features with the encoder and at the"
                " µm/px that the model was trained with"
            )

    def unknowns(self, given: "ModelInput") -> Iterator[str]:
        """Yield what cannot be compared, because the model or the files do not state it."""
        if isinstance(given, FeatureInput) and None in (self.encoder, given.encoder):
            owner = "of the model's features" if self.encoder is None else "of these features"
            yield f"the encoder {owner} is not stated in their files, so only their width is checked"

    def __str__(self) -> str:
        encoder = f" of encoder {self.encoder}" if self.encoder else ""
        return f"{self.num_features} features per patch{encoder}" + (f" at {self.mpp:g} µm/px" if self.mpp else "")


ModelInput = PatchInput | FeatureInput


def input_as_json(described: ModelInput | None) -> dict[str, Any] | None:
    """Return an input as a JSON object; its key ``kind`` is ``patches`` or ``features``."""
    if described is None:
        return None
    content = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(described).items()}
    return {"kind": "patches" if isinstance(described, PatchInput) else "features", **content}


def input_from_json(content: dict[str, Any] | None) -> ModelInput | None:
    """Return an input from what :func:`input_as_json` returned."""
    if content is None:
        return None
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return PatchInput(**facts) if facts.pop("kind") == "patches" else FeatureInput(**facts)


def same_mpp(one: float, other: float) -> bool:
    """Return whether two µm per pixel differ by at most 5 %."""
    return abs(one - other) <= MPP_TOLERANCE * min(one, other) * (1 + 1e-9)


def _same_mpp(trained: float | None, given: float | None) -> bool:
    """Return whether a scale may be used; one of unknown µm per pixel only if the model does not know its own."""
    return trained is None or (given is not None and same_mpp(trained, given))


def _may_be_same_mpp(trained: float | None, given: float | None) -> bool:
    return trained is None or given is None or same_mpp(trained, given)
