"""A folder of features: one file a slide."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from e2e_abmilx.data.features.reading import SUFFIXES, read_features
from e2e_abmilx.data.features.slide_features import FeatureError, SlideFeatures


class FeatureFolder:
    """Files of features by the name of their slide: ``<slide>.h5`` and ``<slide>.pt``, of one tool or of several.

    Attributes:
        path: The folder.
        files: Each slide's file, by name.

    Args:
        path: The folder.
        slide_mpp: Level-0 µm per pixel of slides, for places in µm.
        assume_mpp: That of all other slides.

    Raises:
        FeatureError: There is no file, or two of one slide.
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
                raise FeatureError(f"{other} and {file.name} are both of {file.stem!r}; remove one of them")
        if not self.files:
            inside = sorted({file.parent.name for end in SUFFIXES for file in self.path.glob(f"*/*{end}")})
            hint = f"give one of its folders {inside}" if inside else "check the path"
            raise FeatureError(f"{path} holds no .h5 or .pt file of features; {hint}")
        self._slide_mpp, self._assume_mpp = dict(slide_mpp), assume_mpp
        self._shapes: dict[str, tuple[int, int]] = {}

    def empty(self) -> list[str]:
        """The slides whose files hold no patch; every file is opened for that."""
        found = []
        for slide in self.files:
            try:
                self.shape(slide)
            except FeatureError as error:
                if error.empty:  # what is wrong otherwise is told of the slides that are asked for
                    found.append(slide)
        return found

    def open(self, slide: str) -> SlideFeatures:
        """The features of a slide."""
        return read_features(self.files[slide], slide_mpp=self._slide_mpp.get(slide, self._assume_mpp))

    def shape(self, slide: str) -> tuple[int, int]:
        """N and D of a slide; its file is opened once for that."""
        if slide not in self._shapes:
            features = self.open(slide)
            self._shapes[slide] = features.num_patches, features.num_features
        return self._shapes[slide]
