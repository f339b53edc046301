"""DICOM slides written by pydicom: one file per level, in uncompressed RGB tiles, some of which may be left out."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE = 128


def write_level(
    path: Path,
    pixels: np.ndarray,
    series: str,
    *,
    mpp: float = 0.5,
    kind: str = "VOLUME",
    gaps: frozenset[int] = frozenset(),
) -> None:
    """Write one file of a series.

    Args:
        path: The file.
        pixels: RGB.
        series: SeriesInstanceUID.
        mpp: µm per pixel.
        kind: ``"VOLUME"``, ``"LABEL"`` ….
        gaps: Indices, row by row, of the tiles that are left out.
    """
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
    corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    corners = [corner for number, corner in enumerate(corners) if number not in gaps]
    dataset = _header(series, kind, sparse=bool(gaps))
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.NumberOfFrames = str(len(corners))
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    if gaps:
        dataset.PerFrameFunctionalGroupsSequence = Sequence([_place(y, x) for y, x in corners])
    tiles = (np.ascontiguousarray(padded[y : y + TILE, x : x + TILE]).tobytes() for y, x in corners)
    dataset.PixelData = b"".join(tiles)
    dataset.save_as(path, enforce_file_format=True)


def _header(series: str, kind: str, *, sparse: bool) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.3"
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.Modality = "SM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    dataset.Rows = dataset.Columns = TILE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    path = Dataset()
    path.OpticalPathIdentifier = "0"
    path.ObjectiveLensPower = 20
    dataset.OpticalPathSequence = Sequence([path])
    return dataset


def _place(y: int, x: int) -> Dataset:
    place = Dataset()
    place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = x + 1, y + 1
    place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
    place.ZOffsetInSlideCoordinateSystem = 0
    frame = Dataset()
    frame.PlanePositionSlideSequence = Sequence([place])
    return frame
