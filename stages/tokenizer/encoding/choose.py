"""Which encoder a vocabulary needs. Each is imported when it is chosen: a process compiles only what it runs."""

from __future__ import annotations

from dataclasses import replace

from stages.tokenizer.encoding.library import warn_slow
from stages.tokenizer.encoding.windows import FlatEncoder
from stages.tokenizer.vocabulary import Vocabulary


def choose_encoder(vocabulary: Vocabulary) -> FlatEncoder:
    """Return an encoder that gives exactly the ids that the vocabulary says; a slow one says why on the log.

    Raises:
        ValueError: a single byte is no token, or merges of whole pieces together with scaffolds, which no scheme makes.
    """
    if vocabulary.inference == "longest_prefix":
        from stages.tokenizer.encoding.greedy import LongestPrefix

        return LongestPrefix(vocabulary)
    if vocabulary.inference == "least_tokens":
        from stages.tokenizer.encoding.least import LeastTokens

        return LeastTokens(vocabulary)
    if vocabulary.whole is not None:
        if vocabulary.scaffolds:
            raise ValueError("a vocabulary has merges of whole pieces or scaffolds, not both")
        from stages.tokenizer.encoding.whole import WholeEncoder

        return WholeEncoder(vocabulary)
    if vocabulary.scaffolds:
        from stages.tokenizer.encoding.scaffold import ScaffoldEncoder

        return ScaffoldEncoder(vocabulary)
    return _of_merges(replace(vocabulary, tokens=tuple(vocabulary.ordinary()), special_tokens={}))


def _of_merges(plain: Vocabulary) -> FlatEncoder:
    """Return the encoder of merges inside pieces; special tokens, which it never makes, may have any ids this way."""
    from stages.tokenizer.encoding.encoder import HfEncoder, open_encoder
    from stages.tokenizer.encoding.probe import EncoderMismatch

    try:
        encoder = open_encoder(plain)
    except EncoderMismatch as error:
        encoder = HfEncoder(plain, str(error))
    if isinstance(encoder, HfEncoder):
        warn_slow(encoder.reason)
    return encoder
