"""`measure-tokenizer`: tokenizers side by side on the documents of a build.

Reads tokenizer files and a sample of the documents; prints a table and writes one page (`measure_page.py`), or prints all
figures as JSON. Standard output ends with `page <path>`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePath

import numpy as np

from gristmill.errors import InputError, UserError
from gristmill.json_values import Plain
from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.encoding.windows import FlatEncoder, Offsets
from gristmill.tokenizer.measuring import measure as measures
from gristmill.tokenizer.measuring.measure import Measured
from gristmill.tokenizer.measuring.mixture import infer
from gristmill.tokenizer.measuring.spelling import LibraryTable, Speller, Table, as_vocabulary
from gristmill.tokenizer.opening import open_encoder, read_tokenizer
from gristmill.tokenizer.patterns import Pattern, find_pattern
from gristmill.tokenizer.progress import Progress
from gristmill.tokenizer.tokenizer_file import TokenizerFile, find_file
from gristmill.tokenizer.training.corpus import Corpus, make_corpus, normalized
from gristmill.tokenizer.vocabulary import Vocabulary, is_superword
from jobs.progress import TrainingProgress
from jobs.terminal import say, show_json, tell
from jobs.tokenizer.corpus import Sample, documents_of, sample
from jobs.tokenizer.measure_page import page
from jobs.tokenizer.measure_table import table

LANGUAGES = 12  # shown by name; the others are one group
OTHERS, UNKNOWN, ALL = "others", "unknown", "all"
SUPERWORDS = 30  # in each list
HEAT_LANGUAGES, HEAT_CHARACTERS, HEAT_CANDIDATES = 6, 600, 20
COLUMN = "language"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for. `tokenizers`: files or folders. `on`: a build of documents. `baseline`: one of the tokenizers; None:
    the first. `bytes`: of text to measure on, at most. `first_stage`: see `mixture.infer`; a name or a regular expression."""

    tokenizers: tuple[str, ...]
    on: str
    baseline: str | None = None
    bytes: int = 20_000_000
    seed: int = 0
    mixture: bool = False
    first_stage: str | None = None
    page: str = "build/measure-tokenizer.html"


@dataclass(frozen=True)
class Opened:
    """A tokenizer and what it is called; `vocabulary` has its tokens, of one that only the library knows without merges."""

    name: str
    file: Path
    vocabulary: Vocabulary
    encoder: FlatEncoder
    table: Speller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `measure-tokenizer` takes."""
    parser.add_argument("tokenizers", nargs="+", metavar="TOKENIZER", help="a tokenizer's folder or file")
    parser.add_argument("--on", required=True, metavar="BUILD", help="the output folder of a build of documents")
    parser.add_argument("--baseline", metavar="TOKENIZER", help="the one that others are compared with; the first if not given")
    parser.add_argument("--bytes", type=int, default=20_000_000, help="of text to measure on, at most (20000000)")
    parser.add_argument("--seed", type=int, default=0, help="another one takes other documents (0)")
    parser.add_argument("--mixture", action="store_true", help="infer from the merges which languages each was trained on")
    parser.add_argument("--first-stage", metavar="PATTERN", help="how words were cut for a superword tokenizer's first merges")
    page = "build/measure-tokenizer.html"
    parser.add_argument("--page", default=page, help=f"where the page goes ({page})")
    parser.add_argument("--json", action="store_true", help="print all figures instead")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    asked = {field.name: getattr(arguments, field.name) for field in fields(Request)}
    return measure(Request(**asked | {"tokenizers": tuple(arguments.tokenizers)}), as_json=arguments.json)


def measure(request: Request, *, as_json: bool = False) -> int:
    """Measure, and print or write what was found; return the exit code.

    Raises:
        UserError: a tokenizer or a build that is not there or cannot be used, or options that do not fit each other.
    """
    first_stage = _check(request)
    opened = open_all(request.tokenizers)
    baseline = opened[_index(request)].name
    with TrainingProgress() as shown:
        taken, groups = take(request, shown)
        corpus = make_corpus(taken.texts, groups)
        found = []
        for each in opened:
            shown.say(f"{each.name}: {each.vocabulary.size:,} tokens")
            measured = measures.measure(each.vocabulary, each.encoder, corpus, request.seed, shown, each.table)
            mixture = _mixture(each, corpus, first_stage, shown) if request.mixture else None
            found.append((each, measured, mixture))
        summary = summarize(request, (taken, groups), found, baseline)
        if as_json:
            show_json(summary, allow_nan=False)
            return 0
        heat = [_heat(each, measured, taken, groups) for each, measured, _ in found]
    say("\n".join(table(summary)))
    say(f"page {write(request.page, page(summary, heat, _spelled(found)))}")
    return 0


def _check(request: Request) -> Pattern | None:
    """Check the options against each other; return the pattern of the first stage."""
    if request.bytes < 1:
        raise UserError(f"--bytes must be at least 1, found {request.bytes}")
    if request.seed < 0:
        raise UserError(f"--seed must be at least 0, found {request.seed}")
    if request.first_stage is None:
        return None
    if not request.mixture:
        raise UserError("--first-stage says how words were cut for the mixture; give --mixture too")
    try:
        return find_pattern(request.first_stage, "--first-stage")
    except ValueError as error:
        raise UserError(str(error)) from error


def _index(request: Request) -> int:
    """Return the number of the baseline among the tokenizers."""
    if request.baseline is None:
        return 0
    paths = [os.path.normpath(path) for path in request.tokenizers]
    wanted = os.path.normpath(request.baseline)
    if wanted not in paths:
        raise UserError(f"--baseline {request.baseline!r} is none of the tokenizers: {', '.join(request.tokenizers)}")
    return paths.index(wanted)


def open_all(paths: Sequence[str]) -> list[Opened]:
    """Return the tokenizers, each under the shortest end of its path that no other has.

    Raises:
        InputError: one that cannot be used, or is named twice.
    """
    found = []
    for path, name in zip(paths, names(paths), strict=True):
        file = TokenizerFile.read(path)
        held = read_tokenizer(file, tell_unknown=False)
        try:
            encoder = open_encoder(held, file)
        except UserError:
            raise
        except ValueError as error:
            raise InputError(f"tokenizer {path!r}: {error}") from error
        table = LibraryTable(held) if isinstance(held, LibraryEncoder) else Table(held)
        found.append(Opened(name, find_file(path), as_vocabulary(held), encoder, table))
    return found


def names(paths: Sequence[str]) -> list[str]:
    """Return a short name for each path: as few of its last parts as tell it from the others."""
    parts = [PurePath(os.path.normpath(path)).parts for path in paths]
    parts = [each[:-1] if each[-1] == "tokenizer.json" and len(each) > 1 else each for each in parts]
    if len(set(parts)) < len(parts):
        twice = next(path for i, path in enumerate(paths) if parts[i] in parts[:i])
        raise UserError(f"tokenizer {twice!r} is named twice; name each once")
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(each[-length:]) for each in parts]
        if len(set(short)) == len(short):
            return short
    return list(paths)


def take(request: Request, progress: Progress) -> tuple[Sample, list[str]]:
    """Return a sample of the documents, and the group of each: its language, or `others` for the rarer ones."""
    first = next(iter(documents_of(request.on)), None)
    if first is None:
        raise InputError(f"--on {request.on!r}: the build holds no documents; there is nothing to measure on")
    column = COLUMN if COLUMN in first.column_names else None
    taken = sample(request.on, request.bytes, request.seed, column, lambda what, rows: progress(what, rows, 0, "documents"))
    if column is None:
        return taken, [ALL] * len(taken)
    sizes: dict[str, int] = {}
    for name, text in zip(taken.strata, taken.texts, strict=True):
        sizes[name] = sizes.get(name, 0) + len(text)
    ranked = sorted(sizes, key=lambda name: (-sizes[name], name))
    kept = set(ranked if len(ranked) <= LANGUAGES + 1 else ranked[:LANGUAGES])
    return taken, [(name or UNKNOWN) if name in kept else OTHERS for name in taken.strata]


def _mixture(opened: Opened, corpus: Corpus, first_stage: Pattern | None, progress: Progress) -> dict[str, Plain]:
    """Return the inferred mixture, or why there is none: of several tokenizers one may say nothing."""
    vocabulary = opened.vocabulary
    try:
        if not len(vocabulary.merges):
            raise InputError(f"a mixture is read off byte-level merges; tokenizer {opened.name!r} has none")
        found = infer(vocabulary, normalized(corpus, vocabulary.normalizer), first_stage=first_stage, progress=progress)
    except InputError as error:
        return {"error": str(error)}
    return {"shares": dict(found.shares), "merges": found.merges, "seen": found.seen, "slack": round(found.slack, 4)}


# What was found, as plain data

Found = tuple[Opened, Measured, dict[str, Plain] | None]


def summarize(request: Request, taken: tuple[Sample, Sequence[str]], found: Sequence[Found], baseline: str) -> dict[str, Plain]:
    """Return all figures as JSON has them; a figure that cannot be is null."""
    measured = found[0][1]
    order = measures.order_by_bytes(measured.groups, measured.bytes)
    languages = {measured.groups[i]: {"documents": int(measured.documents[i]), "bytes": int(measured.bytes[i])} for i in order}
    texts, _ = taken
    against = next(each for opened, each, _ in found if opened.name == baseline)
    return {
        "on": request.on,
        "documents": len(texts),
        "bytes": texts.bytes,
        "seed": request.seed,
        "sha256": texts.fingerprint(),
        "languages": languages,
        "baseline": baseline,
        "reference": measures.reference_group(measured),
        "tokenizers": [_one(each, against, list(languages)) for each in found],
    }


def _one(found: Found, baseline: Measured, groups: Sequence[str]) -> dict[str, Plain]:
    opened, measured, mixture = found
    vocabulary = opened.vocabulary
    whole, ratios = measures.bytes_per_token(measured)
    length, lengths = measures.sequence_length(measured, baseline)
    premiums = measures.premiums(measured)
    used = measures.use(vocabulary, measured.counts)
    consistency = measured.consistency
    described: dict[str, Plain] = {
        "name": opened.name,
        "file": str(opened.file),
        "sha256": hashlib.sha256(opened.file.read_bytes()).hexdigest(),
        "vocab_size": vocabulary.size,
        "tokens": int(measured.tokens.sum()),
        "bytes_per_token": whole,
        "nsl": length,
        "renyi_efficiency": _number(measures.renyi_efficiency(measured.counts, used.tokens)),
        "round_trip": {"documents": consistency.documents, "same": consistency.same_text},
        "reencoding": {
            "windows": consistency.windows,
            "same": consistency.same_ids,
            "rate": _number(consistency.consistency_rate),
            "split": consistency.split,
            "tokens": consistency.window_tokens,
            "other_tokens": consistency.other_tokens,
            "examples": [{"given": list(e.given), "encoded": list(e.encoded)} for e in consistency.examples.values()],
        },
        "vocabulary": {
            "tokens": used.tokens,
            "never": list(used.never),
            "rare": list(used.rare),
            "unreachable": list(measured.unreachable),
            "special": used.special,
            "gaps": used.gaps,
        },
        "superwords": _superwords(vocabulary, measured),
        "languages": {
            group: {"bytes_per_token": ratios.get(group), "nsl": lengths.get(group), "premium": premiums.get(group)}
            for group in groups
        },
    }
    return described if mixture is None else described | {"mixture": mixture}


def _superwords(vocabulary: Vocabulary, measured: Measured) -> dict[str, Plain]:
    found = measures.superwords(vocabulary, measured.counts, SUPERWORDS)
    return {
        "tokens": len(found.ids),
        "token_share": found.token_share,
        "byte_share": found.byte_share,
        "words": {str(number): count for number, count in found.words.items()},
        "longest": list(found.longest),
        "most_used": list(found.most_used),
    }


def _number(value: float) -> float | None:
    return None if value != value else value


def _spelled(found: Sequence[Found]) -> list[dict[int, tuple[str, int]]]:
    """Return, for each tokenizer, the text and the count of each of its tokens, for the page."""
    return [
        {i: (token.decode(errors="replace"), int(measured.counts[i])) for i, token in enumerate(opened.vocabulary.tokens)}
        for opened, measured, _ in found
    ]


def _heat(opened: Opened, measured: Measured, taken: Sample, groups: Sequence[str]) -> list[dict[str, Plain]]:
    """Return the start of one document of each of the largest languages, token by token: text, id, count, bytes, superword."""
    order = measures.order_by_bytes(measured.groups, measured.bytes)[:HEAT_LANGUAGES]
    shown = list[dict[str, Plain]]()
    for group in (measured.groups[i] for i in order):
        starts = [taken.texts[i].decode()[:HEAT_CHARACTERS] for i, name in enumerate(groups) if name == group][:HEAT_CANDIDATES]
        text = max(starts, key=lambda start: sum(map(str.isalpha, start)))  # prose rather than a menu of links
        ids, ends, data = measures.token_spans(opened.vocabulary, opened.encoder, text)
        letters = _letters(data, ends)
        rows = zip(letters, ids.tolist(), np.diff(ends).tolist(), strict=True)
        tokens = [(part, i, int(measured.counts[i]), size, is_superword(opened.vocabulary.tokens[i])) for part, i, size in rows]
        shown.append({"language": group, "tokens": tokens})
    return shown


def _letters(text: bytes, ends: Offsets) -> list[str]:
    """Return the characters of each token; one that is cut belongs to the token that ends it."""
    done, parts = 0, []
    for end in ends[1:].tolist():
        whole = end
        while whole < len(text) and text[whole] & 0xC0 == 0x80:
            whole -= 1
        parts.append(text[done : max(whole, done)].decode())
        done = max(whole, done)
    return parts


def write(path: str, text: str) -> Path:
    """Put the page there at once, instead of one that was there before; return its path."""
    target = Path(path)
    if target.is_dir():
        raise UserError(f"--page {path!r} is a folder; name a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(text.encode("utf-8", "replace"))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    tell(f"open {target} in a browser")
    return target
