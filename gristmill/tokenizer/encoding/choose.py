"""Which encoder a vocabulary needs. Each is imported when it is chosen: a process compiles only what it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gristmill.tokenizer.encoding.library import warn_slow
from gristmill.tokenizer.encoding.windows import FlatEncoder
from gristmill.tokenizer.json_parts import Step
from gristmill.tokenizer.vocabulary import Added, Vocabulary


def choose_encoder(vocabulary: Vocabulary, *, names_as_tokens: bool = False) -> FlatEncoder:
    """Return an encoder that gives exactly the ids that the vocabulary says; a slow one says why on the log.

    As in the Hugging Face library, names are looked for in the text as it is, then the rest is normalized, then the names that
    are `normalized` are looked for, then what is left is encoded.

    Args:
        vocabulary: the tokenizer.
        names_as_tokens: whether the names of special tokens in texts become these; those of other added tokens always do.

    Raises:
        ValueError: a single byte is no token, or merges of whole pieces together with scaffolds, which no scheme makes.
    """
    encoder = _of_pieces(vocabulary)
    added = vocabulary.added or tuple(Added(name, i) for name, i in vocabulary.special_tokens.items())
    if not names_as_tokens and all(token.special for token in added):
        added = ()
    silent = () if names_as_tokens else tuple(vocabulary.special_tokens.values())
    normalizer = vocabulary.normalizer
    encoder = _with_names(encoder, {_normal(token, normalizer): token.id for token in added if token.normalized}, silent)
    if normalizer is not None:
        from gristmill.tokenizer.encoding.normalizing import NormalizingEncoder

        encoder = NormalizingEncoder(encoder, normalizer)
    return _with_names(encoder, {token.content: token.id for token in added if not token.normalized}, silent)


def _with_names(encoder: FlatEncoder, names: Mapping[str, int], silent: tuple[int, ...]) -> FlatEncoder:
    if not set(names.values()) - set(silent):
        return encoder
    from gristmill.tokenizer.encoding.names import Names, NamesEncoder

    return NamesEncoder(encoder, Names(names, silent))


def _normal(token: Added, normalizer: Step | None) -> str:
    """Return the name of a token as it is looked for behind the normalizer."""
    if normalizer is None:
        return token.content
    from gristmill.tokenizer.encoding.normalizing import Normalizer

    return Normalizer(normalizer).one(token.content)


def _of_pieces(vocabulary: Vocabulary) -> FlatEncoder:
    """Return the encoder of texts as they are, in which no name is looked for."""
    if vocabulary.inference == "longest_prefix":
        from gristmill.tokenizer.encoding.greedy import LongestPrefix

        return LongestPrefix(vocabulary)
    if vocabulary.inference == "least_tokens":
        from gristmill.tokenizer.encoding.least import LeastTokens

        return LeastTokens(vocabulary)
    if vocabulary.whole is not None:
        if vocabulary.scaffolds:
            raise ValueError("a vocabulary has merges of whole pieces or scaffolds, not both")
        from gristmill.tokenizer.encoding.whole import WholeEncoder

        return WholeEncoder(vocabulary)
    if vocabulary.scaffolds:
        from gristmill.tokenizer.encoding.scaffold import ScaffoldEncoder

        return ScaffoldEncoder(vocabulary)
    return _of_merges(replace(vocabulary, tokens=tuple(vocabulary.ordinary()), special_tokens={}, added=(), frame={}))


def _of_merges(plain: Vocabulary) -> FlatEncoder:
    """Return the encoder of merges inside pieces; special tokens, which it never makes, may have any ids this way."""
    from gristmill.tokenizer.encoding.encoder import HfEncoder, open_encoder
    from gristmill.tokenizer.encoding.probe import EncoderMismatch

    try:
        encoder = open_encoder(plain)
    except EncoderMismatch as error:
        encoder = HfEncoder(plain, str(error))
    if isinstance(encoder, HfEncoder):
        warn_slow(encoder.reason)
    return encoder
