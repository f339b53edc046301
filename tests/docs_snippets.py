"""Snippets of Markdown pages, and a folder in which they can run."""

import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import pandas as pd
import torch
import yaml
from slide_runs import write_slide_config

from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore

ROOT = Path(__file__).parents[1]

_SNIPPET = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>python|bash)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)

_SHORT_FIT = (
    "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.check_val_every_n_epoch 1 --trainer.accelerator cpu"
    " --trainer.devices 1 --data.num_workers 0 --trainer.enable_progress_bar false"
)

#: Options that make the command of a snippet short, by the start of the command; the last match counts.
SHORTER = {
    "fit": f"{_SHORT_FIT} --data.patches_per_bag 8",
    "fit --config configs/demo_survival.yaml": f"{_SHORT_FIT} --data.patches_per_bag 8 --data.batch_size 8",
    "fit --config configs/demo_features.yaml": f"{_SHORT_FIT} --data.max_patches 8",
    "fit --config configs/demo.yaml": f"{_SHORT_FIT} --data.num_slides 24 --data.side 512",
    "fit --config runs/mine/fit.yaml": _SHORT_FIT,
    "compare": _SHORT_FIT,
    "predict --config": "--trainer.accelerator cpu --trainer.enable_progress_bar false --data.num_workers 0",
    "cache": "--workers 1 --patch_size 64",
    "import_coords": "--workers 1",
    "predict --model": "--workers 1",
    "evaluate": "--workers 1",
    "init": "--pretrained false --target label",  # the table of the tests has survival times too
}

#: What makes a Python snippet short, and fits the small slides.
_SMALLER = {
    "patch_size=256": "patch_size=64",
    "patches_per_bag=128": "patches_per_bag=8",
    "max_epochs=20": "max_epochs=1",
}


class Snippet(NamedTuple):
    """A snippet of a page: its language, its text, the file that it is written to, and how it is marked."""

    language: str
    text: str
    title: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell snippet, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def snippets_of(page: Path) -> list[Snippet]:
    """Return the Python and shell snippets of a page, in order."""
    found = _SNIPPET.finditer(page.read_text(encoding="utf-8"))
    return [Snippet(one["language"], one["text"], one["title"] or "", one["mark"] or "") for one in found]


def words_of(snippets: list[Snippet]) -> Iterator[list[str]]:
    """Yield the words of each e2e-abmilx command, from the name of the command on."""
    for snippet in snippets:
        for line in snippet.commands if snippet.language == "bash" else ():
            called = re.search(r"(?:^|-m )(?:e2e-abmilx|e2e_abmilx) (.+)", line)
            if called:
                yield shlex.split(called[1])


def run(snippet: Snippet, names: dict[str, object]) -> None:
    """Run a snippet in the current folder; Python snippets of a page share their names."""
    if snippet.language == "python":
        if snippet.title:
            Path(snippet.title).write_text(snippet.text, encoding="utf-8")
            runpy.run_path(snippet.title)
        else:
            exec(_made_smaller(snippet.text), names)
        return
    for line in snippet.commands:
        words = next(words_of([snippet._replace(text=line)]), None)
        if words is None:
            subprocess.run(["bash", "-ec", line], check=True)
        else:
            run_command(words)


def _made_smaller(text: str) -> str:
    for usual, small in _SMALLER.items():
        text = text.replace(usual, small)
    return text


def run_command(words: list[str]) -> None:
    """Run an e2e-abmilx command, with options that make it short."""
    matching = [more for start, more in SHORTER.items() if " ".join(words).startswith(start)]
    try:
        main([*words, *(matching[-1] if matching else "").split()])
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"{shlex.join(words)}: {end.code}") from end


def prepare(folder: Path, cohort: Path, stores: Path) -> None:
    """Lay out the names that the pages share: slides, labels, patches, features and coordinates."""
    shutil.copytree(cohort / "slides", folder / "slides")
    shutil.copytree(cohort / "masks", folder / "masks")
    shutil.copytree(stores, folder / "caches" / "mine")
    (folder / "configs").symlink_to(ROOT / "configs")
    labels = pd.read_csv(cohort / "labels.csv").rename(columns={"lesion": "label"})
    labels["site"] = ["north", "south"] * (len(labels) // 2)
    labels[["case", "slide", "label", "time", "event", "split", "site"]].to_csv(folder / "labels.csv", index=False)
    _write_markers(folder, labels)
    _write_external(folder, labels[labels["split"] == "test"])
    _write_features(folder)
    _write_coords(folder)


def _write_markers(folder: Path, labels: pd.DataFrame) -> None:
    """Several labels per case, of which some are unknown, and a number."""
    markers = labels[["case", "slide"]].assign(ER=labels["label"], PR=1 - labels["label"])
    markers["HER2"] = ["", "0", "1"] * (len(labels) // 3)
    markers["ki67"] = 100 * labels["lesion_fraction"]
    markers.assign(split=labels["split"]).to_csv(folder / "markers.csv", index=False)


def _write_external(folder: Path, cases: pd.DataFrame) -> None:
    """Another cohort: the test cases, which the model has not seen; and one new slide."""
    (folder / "external").mkdir()
    (folder / "new").mkdir()
    for slide in cases["slide"]:
        shutil.copy(folder / "slides" / f"{slide}.tiff", folder / "external")
    shutil.copy(folder / "slides" / f"{cases['slide'].iloc[0]}.tiff", folder / "new" / "slide.tiff")
    cases[["case", "slide", "label", "site"]].to_csv(folder / "external.csv", index=False)


def _write_features(folder: Path) -> None:
    (folder / "features").mkdir()
    for store in (folder / "caches" / "mine").glob("*.zarr"):
        torch.save(torch.randn(12, 256), folder / "features" / f"{store.stem}.pt")


def _write_coords(folder: Path) -> None:
    """Coordinates as TRIDENT writes them, of the fine patches of the stores."""
    (folder / "trident" / "patches").mkdir(parents=True)
    for path in (folder / "caches" / "mine").glob("*.zarr"):
        with h5py.File(folder / "trident" / "patches" / f"{path.stem}_patches.h5", "w") as file:
            table = file.create_dataset("coords", data=PatchStore(path).coords(0))
            table.attrs.update(patch_size=64, patch_size_level0=64)


def fit(folder: Path) -> None:
    """Write ``config.yaml`` into the current folder, and make its run."""
    path = write_slide_config(folder, folder, Path("caches/mine"))
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"] |= {"labels": "labels.csv", "columns": None}
    config["trainer"]["default_root_dir"] = "runs/mine"
    path.write_text(yaml.safe_dump(config))
    run_command(["fit", "--config", "config.yaml"])
