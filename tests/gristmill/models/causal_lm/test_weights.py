"""Where a model lies: in folders, in the hub's own cache, below URLs and in S3; downloaded once, and again when it changes."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import fsspec
import huggingface_hub
import pytest
import torch

from gristmill.errors import InputError
from gristmill.models.causal_lm import weights
from tests import s3_servers
from tests.gristmill.models.causal_lm.saved_models import loaded, ours


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/models"


def test_a_path_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"no such folder or file .* and no name on the Hugging Face hub"):
        loaded("./nowhere/at/all")
    with pytest.raises(InputError, match=r"'nobody/tiny': no such folder.*neither in this machine's cache nor reachable"):
        loaded("nobody/tiny")


def test_a_name_on_the_hub_is_read_from_its_own_cache(
    monkeypatch: pytest.MonkeyPatch, llama: Path, tmp_path: Path, cache: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commits = [character * 40 for character in "ab"]
    stamps = []
    for commit in commits:
        shutil.copytree(llama, tmp_path / "hub/models--somebody--tiny/snapshots" / commit)
        (tmp_path / "hub/models--somebody--tiny/refs").mkdir(exist_ok=True)
        (tmp_path / "hub/models--somebody--tiny/refs/main").write_text(commit)
        assert torch.equal(ours(loaded("somebody/tiny")), ours(loaded(llama)))
        stamps += [Path(stamp).read_text() for stamp in weights.stamps("somebody/tiny")]
    assert [json.loads(stamp) for stamp in stamps] == [{"hub": "somebody/tiny", "commit": commit} for commit in commits]


def test_a_model_below_a_url_is_downloaded_once_and_again_when_it_changes(llama: Path, cache: Path) -> None:
    remote = fsspec.filesystem("memory")
    for file in llama.iterdir():
        remote.pipe_file(f"/models/tiny/{file.name}", file.read_bytes())
    remote.pipe_file("/models/tiny/original/consolidated.00.pth", b"left there")
    url = "memory://models/tiny"
    before = weights.stamps(url)
    assert not list(cache.glob("*/")), "a fingerprint needs no download"
    found = weights.find(url)
    assert found.folder.parent == cache and found.sha256() == weights.find(str(llama)).sha256()
    assert weights.stamps(url) == before
    inode = found.folder.stat().st_ino
    assert weights.find(url).folder.stat().st_ino == inode
    remote.pipe_file("/models/tiny/generation_config.json", b"{}")
    assert weights.stamps(url) != before
    again = weights.find(url)
    assert again.folder != found.folder and again.json("generation_config.json") == {}
    remote.pipe_file("/elsewhere/config.json", b"{}")
    with pytest.raises(InputError, match=r"'memory://elsewhere': has config\.json but neither"):
        weights.find("memory://elsewhere")
    with pytest.raises(InputError, match=r"'memory://nowhere': not there"):
        weights.find("memory://nowhere")
    with pytest.raises(InputError, match=r"'none://x': not there, or no URL"):
        weights.find("none://x")


def test_a_download_that_broke_off_goes_on_and_others_wait_for_it(tmp_path: Path, cache: Path) -> None:
    data = b"GGUF" + bytes(range(256)) * 50
    (tmp_path / "there").mkdir()
    (tmp_path / "there/tiny.gguf").write_bytes(data)
    url = f"file://{tmp_path}/there/tiny.gguf"
    (stamp,) = weights.stamps(url)
    target = Path(stamp).with_suffix("")
    part = target.with_suffix(".part")
    part.mkdir()
    (part / "tiny.gguf").write_bytes(data[:5000])
    found: list[weights.Files] = []
    with target.with_suffix(".lock").open("w") as lock:
        weights.fcntl.flock(lock, weights.fcntl.LOCK_EX)
        threads = [threading.Thread(target=lambda: found.append(weights.find(url))) for _ in range(3)]
        for thread in threads:
            thread.start()
        threads[0].join(0.3)
        assert not found and not target.exists() and (part / "tiny.gguf").stat().st_size == 5000
    for thread in threads:
        thread.join()
    assert [file.folder / (file.gguf or "") for file in found] == [target / "tiny.gguf"] * 3
    assert (target / "tiny.gguf").read_bytes() == data and not part.exists()


def test_a_model_in_s3_is_downloaded_and_seen_to_change(llama: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_servers.moto() as port:
        s3_servers.use(monkeypatch, port)
        s3 = fsspec.filesystem("s3")
        s3.mkdir("models")
        for file in llama.iterdir():
            s3.pipe_file(f"models/tiny/{file.name}", file.read_bytes())
        url = "s3://models/tiny"
        found, before = weights.find(url), weights.stamps(url)
        assert found.sha256() == weights.find(str(llama)).sha256()
        config = (llama / weights.CONFIG).read_bytes()
        s3.pipe_file(f"models/tiny/{weights.CONFIG}", config.replace(b"64", b"65"))  # as long as before
        assert weights.stamps(url) != before and weights.find(url).folder != found.folder
        with pytest.raises(InputError, match=r"'s3://models/nothing': (not there|has no config\.json)"):
            weights.find("s3://models/nothing")
