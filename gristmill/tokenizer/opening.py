"""A tokenizer from any file that can be encoded with: compiled where that gives the same ids, by the library where not.

Reads a file; gives what it says, and an encoder for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gristmill.errors import InputError
from gristmill.tokenizer.encoding.library import LibraryEncoder, warn_slow
from gristmill.tokenizer.files import check_plain_names, parse_file
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.tokenizer_file import TokenizerFile
from gristmill.tokenizer.vocabulary import UnsupportedTokenizer, Vocabulary

if TYPE_CHECKING:
    from gristmill.tokenizer.encoding.windows import FlatEncoder

Held = Vocabulary | LibraryEncoder


def read_tokenizer(
    file: TokenizerFile,
    cuts: tuple[Pattern, ...] = (),
    special_tokens: Mapping[str, int] | None = None,
    *,
    names_as_tokens: bool = False,
    tell_unknown: bool = True,
) -> Held:
    """Return the vocabulary of a file, or the library's tokenizer of it where it is more than a vocabulary says.

    Args:
        file: of a tokenizer of any kind.
        cuts, special_tokens: see `files.load`.
        names_as_tokens: whether the names of special tokens in texts become these.
        tell_unknown: see `LibraryEncoder`.

    Raises:
        InputError: none that can be used. Names the file and the key.
    """
    try:
        found = parse_file(file, cuts, special_tokens)
        if names_as_tokens:
            check_plain_names(file)
        return found
    except UnsupportedTokenizer as reason:
        return LibraryEncoder(file, str(reason), names_as_tokens=names_as_tokens, tell_unknown=tell_unknown)


def open_encoder(held: Held, file: TokenizerFile, *, names_as_tokens: bool = False) -> FlatEncoder:
    """Return the fastest encoder that gives the ids of the library; a slow one says why on the log.

    Args:
        held: what `read_tokenizer` gave.
        file: it was read from.
        names_as_tokens: see there.

    Raises:
        InputError: the library cannot read it, or fails on an ordinary text; names the tokenizer.
        ValueError: see `choose_encoder`.
    """
    if isinstance(held, LibraryEncoder):
        warn_slow(held.reason)
        return held
    from gristmill.tokenizer.encoding.choose import choose_encoder
    from gristmill.tokenizer.encoding.normalizing import UnreadableNormalizer
    from gristmill.tokenizer.encoding.probe import EncoderMismatch, LibraryFails, check_whole

    changed = held.normalizer is not None or any(not token.special for token in held.added)
    # Before the loops, which ask the library for steps of a normalizer: it says of the whole file that it cannot be read.
    library = LibraryEncoder(file, names_as_tokens=names_as_tokens) if changed and held.inference == "merges" else None
    try:
        encoder = choose_encoder(held, names_as_tokens=names_as_tokens)
        if library is not None:
            check_whole(encoder, library, [token.content for token in held.added])
    except (LibraryFails, UnreadableNormalizer) as error:
        raise InputError(f"tokenizer {file.where!r}: {error}") from error
    except EncoderMismatch as error:
        slow = LibraryEncoder(file, f"tokenizer {file.where!r}: {error}", names_as_tokens=names_as_tokens)
        warn_slow(slow.reason)
        return slow
    return encoder
