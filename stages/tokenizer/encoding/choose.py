"""Which encoder a vocabulary needs. Each is imported when it is chosen: a process compiles only what it runs."""

from __future__ import annotations

from stages.tokenizer.encoding.windows import FlatEncoder
from stages.tokenizer.vocabulary import Vocabulary


def choose_encoder(vocabulary: Vocabulary) -> FlatEncoder:
    """Return an encoder that gives exactly the ids that the vocabulary says.

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
    from stages.tokenizer.encoding.encoder import Encoder

    return Encoder(vocabulary)
