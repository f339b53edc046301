"""What bash and zsh offer after a word."""

import shutil
import subprocess
import time

import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.main.commands import COMMANDS
from e2e_abmilx.main.completion import completion


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: completion([shell]) for shell in ("bash", "zsh")}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["imp"], ["import_coords", "import_images", "import_lmdb"]),
        (["fit", "--trainer.max"], ["--trainer.max_epochs"]),
        (["fit", "--config", "a.yaml", "--data.p"], ["--data.patch_size", "--data.patches_per_bag"]),
        (["cache", "--mi"], ["--min_tissue"]),
        (["init", "--la"], ["--labels"]),
        (["plan", "--g"], ["--gpu_memory"]),
        (["compare", "--he"], ["--heads", "--help"]),
        (["crossval", "--fo"], ["--folds"]),
        (["predict", "--heat"], ["--heatmaps"]),
        (["fit", "--config", "conf"], []),
    ],
)
def test_names_are_completed_at_once(scripts: dict[str, str], shell: str, words: list[str], offered: list[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    typed = " ".join(["e2e-abmilx", *words])
    started = time.monotonic()
    if shell == "bash":
        ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _e2e_abmilx; echo ${{COMPREPLY[@]}}"
        run = ["bash", "--norc", "-c", f"{scripts[shell]}\n{ask}"]
    else:  # of zsh's own functions, which need a terminal, compadd offers what begins with the word
        stubs = "compdef() { }; _files() { }; compadd() { shift; print -l -- ${(M)@:#$PREFIX*} }"
        ask = f"words=({typed}); CURRENT={len(words) + 1}; PREFIX={words[-1]}; _e2e_abmilx"
        run = ["zsh", "-f", "-c", f"{stubs}\n{scripts[shell]}\n{ask}"]
    ran = subprocess.run(run, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == offered
    assert time.monotonic() - started < 5  # hundredths of a second: the script imports nothing


def test_all_commands_are_offered(scripts: dict[str, str]) -> None:
    for name in COMMANDS:
        assert f"            {name}) words=" in scripts["bash"]


def test_other_shells_are_refused() -> None:
    for words in ([], ["fish"]):
        with pytest.raises(InputError, match="name bash or zsh"):
            completion(words)
