"""A folder of features, with one file per slide."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from e2e_abmilx.data.features.reading import SUFFIXES, read_features
from e2e_abmilx.data.features.slide_features import FeatureError, SlideFeatures


class FeatureFacts(NamedTuple):
    """Facts of the features of a slide.

    Attributes:
        num_patches: N.
        num_features: D.
        encoder: Description of the encoder; None where the file states none.
        mpp: µm per pixel of the patches that the encoder saw; None where unknown.
    """

    num_patches: int
    num_features: int
    encoder: str | None
    mpp: float | None


class FeatureFolder:
    """Feature files ``<slide>.h5`` and ``<slide>.pt``, written by one or several tools.

    Args:
        path: The folder.
        slide_mpp: Level-0 µm per pixel of slides, for coordinates in µm.
        assume_mpp: Level-0 µm per pixel of all other slides.

    Attributes:
        files: File of each slide, by the slide's name.

    Raises:
        FeatureError: There is no file, or a slide has two.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        slide_mpp: Mapping[str, float] = MappingProxyType({}),
        assume_mpp: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.files: dict[str, Path] = {}
        for file in sorted(found for found in self.path.glob("[!.]*") if found.suffix.lower() in SUFFIXES):
            other = self.files.setdefault(file.stem, file)
            if other != file:
                raise FeatureError(f"{other} and {file.name} both belong to slide {file.stem!r}; remove one of them")
        if not self.files:
            inside = sorted({file.parent.name for end in SUFFIXES for file in self.path.glob(f"*/*{end}")})
            hint = f"give one of its folders {inside}" if inside else "check the path"
            raise FeatureError(f"{path} holds no .h5 or .pt file of features; {hint}")
        self._slide_mpp, self._assume_mpp = dict(slide_mpp), assume_mpp
        self._facts: dict[str, FeatureFacts] = {}

    def empty(self) -> list[str]:
        """Return the slides whose files hold no patch; this opens every file."""
        found = []
        for slide in self.files:
            try:
                self.shape(slide)
            except FeatureError as error:
                if error.empty:  # other errors are raised when the slide is used
                    found.append(slide)
        return found

    def open(self, slide: str) -> SlideFeatures:
        """Open the features of a slide."""
        return read_features(self.files[slide], slide_mpp=self._slide_mpp.get(slide, self._assume_mpp))

    def facts(self, slide: str) -> FeatureFacts:
        """Return the facts of a slide's features; its file is opened only the first time."""
        if slide not in self._facts:
            features = self.open(slide)
            self._facts[slide] = FeatureFacts(
                features.num_patches, features.num_features, features.encoder, features.mpp
            )
        return self._facts[slide]

    def shape(self, slide: str) -> tuple[int, int]:
        """Return N and D of a slide."""
        return self.facts(slide)[:2]
