"""The files of a causal language model on this machine: found, or downloaded once a machine; which they are, and their hash.

Reads: a local folder (`config.json`, safetensors), a GGUF file, either below a URL that fsspec opens, or a name on the Hugging
Face hub. Writes: remote ones into a cache folder, each version whole under a name of its own:

    models/<hash of URL, names, sizes, stamps>          the files; appears by a rename when all are there
    models/<hash>.part                                  what a download under way, or broken off, has so far
    models/<hash>.lock                                  locked (flock) by who downloads; the others wait
    models/<hash>.json                                  the URL and the listing, which stand for the content in fingerprints

Nothing there is ever removed: models are few. Imports no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from gristmill.errors import FormatError, InputError
from gristmill.home import cache_folder
from gristmill.json_values import shown
from gristmill.secrets import masked
from gristmill.storage.remote.folder import Remote

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GGUF, GGUF_MAGIC = ".gguf", b"GGUF"
SMALL = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "vocab.txt")  # fmt: skip
CHUNK = 16 << 20  # bytes asked for at once

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Files:
    """The files of one model in a local folder.

    `gguf`: the name of the one file that is all, or None where there is a `config.json`. `names`: of all that are read, sorted.
    """

    folder: Path
    gguf: str | None
    names: tuple[str, ...]

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file of the folder, empty where there is no such file."""
        return _parse((self.folder / name).read_text(), self.folder / name) if name in self.names else {}

    def sha256(self) -> str:
        """Return a hash over the files' names and contents, hex: equal for copies of a model, wherever they lie."""
        digest = hashlib.sha256()
        for name in self.names:
            with (self.folder / name).open("rb") as stream:
                digest.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


def find(path: str) -> Files:
    """Return the files of a model, downloaded before if they are elsewhere.

    Args:
        path: a folder, a `.gguf` file, a URL of either, or a name on the Hugging Face hub, in this order.

    Raises:
        InputError: none of these; or config or weights are missing; names what was looked for, where, and what to give.
        ConnectionError, PermissionError: the server of a URL.
    """
    if "://" in path:
        return _local(_downloaded(path), path)
    if Path(path).expanduser().exists():
        return _local(Path(path).expanduser(), path)
    return _local(_from_hub(path), path)


def stamps(path: str) -> tuple[str, ...]:
    """Return local files whose content decides what the model says, for a stage's `files()`; downloads no weights.

    A local model's are its own. For a URL it is the listing (names, sizes, ETags or times of modification), for a name on the
    hub its `config.json`, `commit` and all: a small file in the cache that changes when the model does.

    Raises:
        InputError: as `find`.
    """
    if "://" in path:
        return (str(_listing_file(path, _listing(path))),)
    if Path(path).expanduser().exists():
        files = _local(Path(path).expanduser(), path)
        return tuple(str(files.folder / name) for name in files.names)
    commit = _from_hub(path, (CONFIG,)).name
    return (str(_written(cache_root() / f"{_key([path, commit])}.json", json.dumps({"hub": path, "commit": commit}))),)


def cache_root() -> Path:
    """Return the folder of downloaded models: `models` in $GRISTMILL_CACHE, else in gristmill's own below ~/.cache.

    Raises:
        InputError: the user has no home.
    """
    folder = cache_folder()
    if folder is None:
        raise InputError("no folder for downloaded models, the user has no home; set GRISTMILL_CACHE to one that can be written")
    return folder / "models"


def needed(names: Mapping[str, object], index: Callable[[], str], where: str) -> tuple[str, ...]:
    """Return which of the files in a folder make up its model, sorted.

    Args:
        names: of the files there.
        index: gives the text of `model.safetensors.index.json`; called if that is there.
        where: the folder's name for messages.

    Raises:
        InputError: no config, no weights as safetensors, or not all of them.
    """
    if CONFIG not in names:
        adapter = "it holds an adapter: merge it into its base model first" if "adapter_config.json" in names else ""
        gguf = next((f"name the file {name} itself" for name in sorted(names) if name.endswith(GGUF)), "")
        raise InputError(f"model {where!r}: has no {CONFIG}; {adapter or gguf or 'give the folder that save_pretrained wrote'}")
    if INDEX in names:
        parts = set(_parse(index(), f"{where}/{INDEX}").get("weight_map", {}).values())
        missing = sorted(parts - set(names))
        if missing or not parts:
            raise InputError(
                f"model {where!r}: {INDEX} names {len(parts)} files, of which {len(missing)} are missing, such as "
                f"{missing[:1]}; copy them all"
            )
        parts.add(INDEX)
    elif SINGLE in names:
        parts = {SINGLE}
    else:
        old = [name for name in sorted(names) if name.startswith("pytorch_model")]
        advice = f"{old[0]} is a pickle, which may run code: convert it (save_pretrained) " if old else "copy the weights too "
        raise InputError(f"model {where!r}: has {CONFIG} but neither {SINGLE} nor {INDEX}; {advice}or name another folder")
    return tuple(sorted({*parts, *(name for name in SMALL if name in names)}))


def _local(path: Path, where: str) -> Files:
    if path.is_dir():
        names = {entry.name: None for entry in path.iterdir() if entry.is_file()}
        return Files(path, None, needed(names, (path / INDEX).read_text, where))
    with path.open("rb") as stream:
        magic = stream.read(len(GGUF_MAGIC))
    if path.suffix != GGUF or magic != GGUF_MAGIC:
        raise InputError(
            f"model {where!r}: is a file, but no GGUF (its name must end in {GGUF}, it must begin with {GGUF_MAGIC!r}, found "
            f"{magic!r}); give a GGUF file, or the folder of a model that save_pretrained wrote"
        )
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name):
        raise InputError(f"model {where!r}: one of several parts of a GGUF; join them (llama-gguf-split --merge), name the whole")
    return Files(path.parent, path.name, (path.name,))


def _from_hub(name: str, only: tuple[str, ...] = ("*.json", "model*.safetensors", "*.model", "*.txt")) -> Path:
    """Return the folder of the hub's own cache that holds these files of a model; it is named after the commit."""
    from huggingface_hub import snapshot_download

    missing = f"model {name!r}: no such folder or file (looked in {os.getcwd()!r})"
    if not _HUB.fullmatch(name):
        raise InputError(f"{missing}, and no name on the Hugging Face hub either; give a folder, a {GGUF} file, a URL or a name")
    try:
        return Path(snapshot_download(name, allow_patterns=list(only)))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{missing}; as a name on the Hugging Face hub it is neither in this machine's cache nor reachable "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}); copy the model to a folder and name that"
        ) from error


# ---- below a URL ----


def _downloaded(url: str) -> Path:
    """Return the local folder, or file, that holds what lies below a URL."""
    listing = _listing(url)
    target = _listing_file(url, listing).with_suffix("")
    if not target.exists():
        # Nothing that is there is emptied; the lock is released when the file is closed, however this process ends.
        with target.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _download(url, listing, target)
    return target / next(iter(listing)) if url.endswith(GGUF) else target


def _download(url: str, listing: Mapping[str, tuple[int, str]], target: Path) -> None:
    folder, part = Remote(_folder(url), {}), target.with_suffix(".part")
    part.mkdir(exist_ok=True)
    for name, (size, _) in listing.items():
        with (part / name).open("ab") as stream:
            while (have := stream.tell()) < size:
                chunk = folder.read_range(name, have, min(size, have + CHUNK))
                if not 0 < len(chunk) <= size - have:
                    raise InputError(f"model {url!r}: {name} has not the {size} bytes that its listing says; upload it again")
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    if _listing(url) != listing:
        for name in listing:
            (part / name).unlink()
        raise InputError(f"model {url!r}: changed while it was downloaded; try again when it is complete")
    part.rename(target)


def _listing(url: str) -> dict[str, tuple[int, str]]:
    """Return name → (bytes, what changes with the content) of the files that make up a remote model, sorted by name."""
    try:
        fs, root = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()  # a listing that a file system remembers would hide what was uploaded since
        found = [fs.info(root)] if url.endswith(GGUF) else fs.ls(root, detail=True)
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise InputError(f"model {url!r}: not there, or no URL that can be opened ({type(error).__name__}: {error})") from error
    entries = {str(entry["name"]).rsplit("/", 1)[-1]: entry for entry in found if entry["type"] == "file"}
    if url.endswith(GGUF):
        names = tuple(entries)
    else:
        try:
            names = needed(entries, lambda: Remote(url, {}).read(INDEX).decode(), url)
        except FormatError as error:
            raise InputError(f"model {url!r}: {error}") from error
    return {name: (int(entries[name]["size"]), _stamp(entries[name])) for name in names}


def _stamp(entry: Mapping[str, Any]) -> str:
    return next((str(entry[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if entry.get(key)), "")


def _listing_file(url: str, listing: Mapping[str, tuple[int, str]]) -> Path:
    text = json.dumps({"url": masked(url), "files": listing}, sort_keys=True)
    return _written(cache_root() / f"{_key([url, listing])}.json", text)


def _key(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _written(path: Path, text: str) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f"{path.name}.{os.getpid()}")
        mine.write_text(text)
        mine.rename(path)
    return path


def _folder(url: str) -> str:
    return url.rsplit("/", 1)[0] if url.endswith(GGUF) else url


def _parse(text: str, where: str | Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: holds {shown(found)}, expected an object; copy it again")
    return found
