"""The form in which a classifier is given texts, which is that of its training: scores of texts in another form mean nothing.

Reads the `manifest.json` beside a model that `train-classifier` wrote; gives texts in that form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError
from gristmill.json_values import Json

MANIFEST, MODEL, KIND = "manifest.json", "model.bin", "fasttext"

Found = TypeVar("Found")

Newlines = Literal["space", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """`newlines` become a space or nothing; `lowercase`; `max_chars` that are read, null: all; a newline behind the text."""

    newlines: Newlines = "space"
    lowercase: bool = False
    max_chars: int | None = None
    trailing_newline: bool = True

    def apply(self, texts: pa.StringArray) -> pa.StringArray:
        """Return texts in this form, but for the newline behind each; those that become a space are left, as white space."""
        if self.max_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self.max_chars)
        if self.newlines == "nothing":
            texts = pc.replace_substring(texts, "\n", "")
        return _lower(texts) if self.lowercase else texts


def check_max_chars(max_chars: int | None) -> None:
    """Raise ValueError for a number of characters that cannot be."""
    if max_chars is not None and max_chars < 1:
        raise ValueError(f"max_chars is {max_chars}; give at least 1, or leave it out for whole documents")


def settled(path: str, given: Mapping[str, Json]) -> Form:
    """Return the form that a model's texts have: that of its manifest where the path is a folder, else what is given.

    Args:
        path: of a model's file, or of the folder of one.
        given: parameters by the names of `Form`; null: not given.

    Raises:
        InputError: the manifest cannot be read, is of another kind of model, or says otherwise than what is given.
    """
    said = {name: value for name, value in given.items() if value is not None}
    if not Path(path).is_dir():
        return Form(**said)  # type: ignore[arg-type]
    known = _preprocessing(Path(path, MANIFEST))
    for name, value in said.items():
        if value != known[name]:
            was = f"the model was trained with {json.dumps(known[name])}"
            raise InputError(f"{name} is {json.dumps(value)}, and {was} ({Path(path, MANIFEST)}); leave it out")
    return Form(**known)  # type: ignore[arg-type]


def check_bytes(model: str, manifest: str) -> None:
    """Raise InputError where a model's file is not the one that its manifest tells of."""
    (written,) = _read(Path(manifest), lambda said: (str(said["files"][MODEL]["sha256"]),))
    with Path(model).open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != written:
        raise InputError(
            f"{model}: not the model that {MANIFEST} beside it tells of (sha256 differs); copy both or train it again"
        )


def _read(path: Path, what: Callable[[dict[str, Any]], Found]) -> Found:
    """Return what is asked of a manifest."""
    try:
        return what(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as the manifest of a model ({error}); give the path of its file") from error


def _preprocessing(path: Path) -> dict[str, Json]:
    kind, found = _read(path, lambda said: (said["kind"], dict(said["preprocessing"])))
    if kind != KIND:
        raise InputError(f"{path}: the model is of kind {kind!r}, not {KIND!r}; name it so: {{{kind}: {{path: {path.parent}}}}}")
    names, most = [field.name for field in fields(Form)], found.get("max_chars")
    fits = found.keys() == set(names) and found["newlines"] in ("space", "nothing") and (most is None or type(most) is int)
    if not fits or not all(type(found[name]) is bool for name in ("lowercase", "trailing_newline")):
        raise InputError(f"{path}: its preprocessing is {json.dumps(found)}; expected {', '.join(names)}")
    return found


def _lower(texts: pa.StringArray) -> pa.StringArray:
    """Return texts in lower case as Python has it; those that are ASCII never become Python's."""
    plain = pc.string_is_ascii(texts)
    lowered = [text.lower() for text in texts.filter(pc.invert(plain)).to_pylist()]
    return pc.replace_with_mask(pc.ascii_lower(texts), pc.invert(plain), pa.array(lowered, pa.string()))
