"""URLs and ``~`` are refused where a folder or file on a disk is meant, and no folder is made of them."""

from pathlib import Path

import pytest
from slide_runs import message_of, write_slide_config

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.urls import is_url, refuse_url, refuse_urls


@pytest.mark.parametrize("text", ["s3://b/x", "s3:/b/x", "S3://b", "hf://m", Path("gs://b/x")])
def test_a_url_is_known_even_as_a_path(text: str | Path) -> None:
    assert is_url(text)
    with pytest.raises(InputError, match=r"out is .*; it must be on a disk of this machine"):
        refuse_url("out", text)


@pytest.mark.parametrize("text", ["runs/a", "/runs/a b", "C:/a", "a:b", "~x/y", None])
def test_a_folder_is_none(text: str | None) -> None:
    refuse_url("out", text)


@pytest.mark.parametrize("text", ["~", "~/runs"])
def test_a_folder_named_tilde_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"out is {text}; only a shell knows what ~ is, so write the whole path"):
        refuse_url("out", text)


def test_only_paths_are_looked_at_and_no_secret_is_repeated() -> None:
    refuse_urls([("cache", "s3://b/x"), ("out", Path("runs")), ("slides", [Path("a.svs")]), ("n", 3)])
    with pytest.raises(InputError, match="slides is s3://b/x"):
        refuse_urls([("slides", [Path("a.svs"), Path("s3://b/x")])])
    for secret in ("s3://me:hunter2@b/x", "https://h/x?sig=hunter2"):
        with pytest.raises(InputError) as caught:
            refuse_urls([("out", Path(secret))])
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["init", "s3://cohorts/study", "--labels", "labels.csv", "--slides", "slides"],
        ["cache", "--slides", "s3://cohorts/slides", "--out", "out"],
        ["cache", "--slides", "slides", "--out", "S3://cohorts/a"],
        ["cache", "--slides", "slides", "--out", "s3//cohorts/a"],
        ["cache", "--slides", "slides", "--out=~/a"],
        ["import_images", "--folder", "slides", "--out", "s3:cohorts/a"],
        ["fit", "--config", "config.yaml", "--trainer.default_root_dir", "s3://cohorts/run"],
        ["fit", "--config", "config.yaml", "--trainer.default_root_dir=~/run"],
        ["fit", "--config", "config.yaml", "--ckpt_path", "s3://cohorts/last.ckpt"],
        ["fit", "--config", "config.yaml", "--data.labels", "s3://cohorts/labels.csv"],
        ["fit", "--config", "config.yaml", "--data.local_cache=~/kept"],
        ["crossval", "--config", "config.yaml", "--trainer.default_root_dir", "s3://cohorts/runs"],
        ["compare", "--configs", "config.yaml", "--out", "s3://cohorts/runs"],
        ["plan", "--config", "config.yaml", "--json", "s3://cohorts/plan.json"],
        ["plan", "--config", "config.yaml", "--trainer.default_root_dir", "s3://cohorts/run"],
        ["predict", "--model", "s3://cohorts/run", "--cache", "stores", "--out", "out"],
        ["predict", "--model", "run", "--cache", "stores", "--out", "s3://cohorts/out"],
        ["report", "--runs", "s3://cohorts/run"],
        ["view", "--run", "s3://cohorts/run"],
        ["export", "--model", "run", "--out", "s3://cohorts/out"],
    ],
    ids=" ".join,
)
def test_no_command_makes_a_folder_of_a_url(
    words: list[str], cohort: Path, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("labels.csv", "slides"):
        (tmp_path / name).symlink_to(cohort / name)
    write_slide_config(tmp_path, cohort, stores)
    monkeypatch.chdir(tmp_path)
    assert "s3" in message_of(words).lower() or "~" in message_of(words)
    assert not [path for path in tmp_path.iterdir() if path.name in ("S3:", "s3:", "s3", "s3:cohorts", "~")]
