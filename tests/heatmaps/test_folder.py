from pathlib import Path

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.heatmaps import SlideAttention, write_heatmap
from e2e_abmilx.store import PatchStore


def test_the_folder_replaces_an_earlier_one(attention: SlideAttention, tmp_path: Path) -> None:
    folder = tmp_path / "heatmaps" / "slide-003"
    for _ in range(2):
        write_heatmap(attention, folder, kind="rank")
        names = {path.name for path in folder.iterdir()}
        assert names == {"overlay.png", "patches.geojson", "rank.ome.zarr", "contact_sheet.png"}
        (folder / "patches.geojson").write_text("old")
    assert [path.name for path in folder.parent.iterdir()] == ["slide-003"]


def test_a_slide_with_a_single_patch(cohort: Path, tmp_path: Path) -> None:
    cache_slides(cohort / "slides" / "slide-002.tiff", tmp_path, mpp=(1.0,), patch_size=256, workers=1)
    store = PatchStore(tmp_path / "slide-002.zarr")
    assert store.num_patches() == 1
    write_heatmap(SlideAttention.from_weights(store, store.coords(), [0], [[1.0]]), tmp_path / "heatmap")
    assert (tmp_path / "heatmap" / "contact_sheet.png").stat().st_size > 1000
