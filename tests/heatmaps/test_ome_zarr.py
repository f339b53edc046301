from pathlib import Path

import numpy as np
import pytest
import zarr

from e2e_abmilx.heatmaps import SlideAttention, write_ome_zarr


def test_ome_zarr_of_contributions_keeps_their_sign(contributing: SlideAttention, tmp_path: Path) -> None:
    write_ome_zarr(contributing, tmp_path / "contribution.ome.zarr", kind="contribution")
    root = zarr.open_group(tmp_path / "contribution.ome.zarr", mode="r")
    channels = root.attrs["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["contribution, 0.5 µm/px", "contribution, 1 µm/px"]
    window = channels[0]["window"]
    assert window["start"] == -window["end"] <= window["min"] == contributing.known_contribution().values.min()
    assert "contribution to the log-odds of tumour" in root.attrs["multiscales"][0]["name"]
    fine = root["0"][0]
    here = contributing.scale == 0
    shrink = np.array(fine.shape[::-1]) / contributing.slide_size
    columns, rows = ((contributing.coords[here] + contributing.footprint(0) / 2) * shrink).astype(int).T
    np.testing.assert_allclose(fine[rows, columns], contributing.known_contribution().values[here], rtol=1e-5)


def test_every_level_covers_the_slide(attention: SlideAttention, tmp_path: Path) -> None:
    write_ome_zarr(attention, tmp_path / "attention.ome.zarr")
    root = zarr.open_group(tmp_path / "attention.ome.zarr", mode="r")
    (image,) = root.attrs["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    labels = [channel["label"] for channel in root.attrs["omero"]["channels"]]
    assert labels == [
        f"{plane}, {mpp} µm/px" for mpp in ("0.5", "1") for plane in ("mean of 3 heads", "head 1", "head 2", "head 3")
    ]
    width, height = attention.slide_size
    mpp = attention.slide_mpp
    for level in image["datasets"]:
        array = root[level["path"]]
        scale, translation = (np.array(step[step["type"]][1:]) for step in level["coordinateTransformations"])
        # pixel centres are integers, also of the slide, whose first pixel is at 0 µm
        np.testing.assert_allclose(translation - scale / 2, -mpp / 2)
        np.testing.assert_allclose(array.shape[1:] * scale, np.array([height, width]) * mpp)
        for channel, number in enumerate([0, 1]):
            here = attention.scale == number
            centres = (attention.coords[here][:, ::-1] + attention.footprint(number) / 2 - 0.5) * mpp
            rows, columns = np.rint((centres - translation) / scale).astype(int).T
            found = array[4 * channel][rows, columns]
            np.testing.assert_allclose(found, attention.mean()[here], rtol=1e-5)


def test_the_ome_zarr_package_reads_the_image(attention: SlideAttention, tmp_path: Path) -> None:
    io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
    write_ome_zarr(attention, tmp_path / "attention.ome.zarr")
    (node,) = reader.Reader(io.parse_url(tmp_path / "attention.ome.zarr", mode="r"))()
    assert node.metadata["channel_names"][0] == "mean of 3 heads, 0.5 µm/px"
    assert [axis["unit"] for axis in node.metadata["axes"][1:]] == ["micrometer"] * 2
    thumbnail = attention.store.thumbnail()
    assert thumbnail is not None
    assert node.data[0].shape == (8, *thumbnail.shape[:2])
    assert float(node.data[0][0].max()) == pytest.approx(attention.mean()[attention.scale == 0].max(), rel=1e-5)
