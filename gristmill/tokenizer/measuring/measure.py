"""How good a tokenizer is on given texts: compression, fairness, use of its vocabulary.

Reads a vocabulary, an encoder for it and batches of texts by group (such as a language); gives counts, and figures made from
counts. Memory is bounded by one batch and one number a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets
from gristmill.tokenizer.measuring.consistency import Consistency, cut_windows, reencode, round_trips
from gristmill.tokenizer.measuring.spelling import Speller, Table
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.vocabulary import Vocabulary, is_superword

RENYI_ORDER = 2.5  # of Zouhar et al., who found it to go best with the quality of translations
RARE = 10  # occurrences; fewer make a token a candidate for being under-trained
REFERENCE = "en"  # of premiums, where there is such a group

Counts = npt.NDArray[np.int64]

IMPOSSIBLE = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})
"""Bytes that valid UTF-8 never has; byte-level vocabularies have them all the same."""


@dataclass(frozen=True)
class Measured:
    """What one tokenizer makes of the texts.

    `groups`: their names. `documents`, `bytes`, `tokens`: int64 [groups]. `counts`: int64 [ids], how often each id came out.
    `consistency`: see there. `unreachable`: tokens whose own bytes encode to something else.
    """

    groups: tuple[str, ...]
    documents: Counts
    bytes: Counts
    tokens: Counts
    counts: Counts
    consistency: Consistency = field(default_factory=Consistency)
    unreachable: tuple[int, ...] = ()


def measure(
    vocabulary: Vocabulary,
    encoder: FlatEncoder,
    corpus: Corpus,
    seed: int = 0,
    progress: Progress = silent,
    table: Speller | None = None,
) -> Measured:
    """Return the counts of one tokenizer over all texts.

    Args:
        vocabulary: of the encoder.
        encoder: texts to ids, flat.
        corpus: the texts by group.
        seed: of the windows that are decoded and encoded again.
        progress: called with the bytes encoded.
        table: ids to text; None: by the bytes of the vocabulary's tokens.
    """
    table = Table(vocabulary) if table is None else table
    documents, sizes, tokens = (np.zeros(len(corpus.groups), np.int64) for _ in range(3))
    counts = np.zeros(len(vocabulary.tokens), np.int64)
    consistency = Consistency()
    done, total = 0, corpus.bytes
    for number, batch in enumerate(corpus.batches):
        progress("encode", done, total, "bytes")
        ids, offsets = encoder.encode(batch.text, batch.offsets)
        documents[batch.group] += len(batch)
        sizes[batch.group] += int(batch.offsets[-1] - batch.offsets[0])
        tokens[batch.group] += len(ids)
        counts += np.bincount(ids, minlength=len(counts))
        consistency.add_documents(round_trips(table, ids, offsets, batch))
        begins, ends = cut_windows(offsets, np.random.default_rng([seed, number]))
        reencode(table, encoder, (ids, offsets), (begins, ends), consistency)
        done += len(batch.text)
    progress("encode", done, total, "bytes")
    unreachable = find_unreachable(vocabulary, encoder, table)
    return Measured(corpus.groups, documents, sizes, tokens, counts, consistency, tuple(unreachable.tolist()))


def bytes_per_token(measured: Measured) -> tuple[float, dict[str, float]]:
    """Return bytes of UTF-8 / tokens over all texts, and of each group that has tokens."""
    some = [i for i in range(len(measured.groups)) if measured.tokens[i]]
    each = {measured.groups[i]: float(measured.bytes[i] / measured.tokens[i]) for i in some}
    return float(measured.bytes.sum() / max(1, measured.tokens.sum())), each


def sequence_length(measured: Measured, baseline: Measured) -> tuple[float, dict[str, float]]:
    """Return the normalized sequence length: tokens / tokens of the baseline on the same texts; below 1 is shorter.

    Dagan et al. 2024, "Getting the most out of your tokenizer for pre-training and domain adaptation", arXiv 2402.01035.

    Returns:
        Over all texts, and of each group.
    """
    some = [i for i in range(len(measured.groups)) if baseline.tokens[i]]
    each = {measured.groups[i]: float(measured.tokens[i] / baseline.tokens[i]) for i in some}
    return float(measured.tokens.sum() / max(1, baseline.tokens.sum())), each


def reference_group(measured: Measured) -> str:
    """Return the group that premiums are measured against: `en` where there is one, or the one with most bytes."""
    return REFERENCE if REFERENCE in measured.groups else measured.groups[int(np.argmax(measured.bytes))]


def premiums(measured: Measured) -> dict[str, float]:
    """Return the token premium of each group by bytes: (tokens / bytes) of it / (tokens / bytes) of the reference group.

    Petrov et al. 2023, "Language Model Tokenizers Introduce Unfairness Between Languages", arXiv 2305.15425, and Arnett et al.
    2025, "Explaining and Mitigating Crosslingual Tokenizer Inequities", arXiv 2510.21909, divide the tokens of one language by
    those of another for the *same sentences*. Documents of a build are no translations of each other, so what is compared
    here is the tokens for the same number of bytes. That is less than the whole premium where a script needs more bytes to say
    the same (about 3 a character in Chinese, Japanese or Hindi, 2 in Russian or Greek, 1 in English; byte premiums: Arnett et
    al. 2024, arXiv 2403.00686), and it takes in what else differs between the documents, such as code and numbers.
    """
    _, ratios = bytes_per_token(measured)
    reference = ratios.get(reference_group(measured), 0.0)
    return {group: reference / ratio for group, ratio in ratios.items()}


def renyi_efficiency(counts: Counts, types: int, order: float = RENYI_ORDER) -> float:
    """Return Rényi efficiency: H_a(p) / log(types), where H_a(p) = log(sum of p^a) / (1 - a); 1 when all are used alike.

    Zouhar et al. 2023, "Tokenization and the Noiseless Channel", arXiv 2306.16842, eq. 13 with a = 2.5. Cognetta et al. 2024
    (arXiv 2403.02187) show tokenizers that it ranks wrongly: compare kindred tokenizers only.

    Args:
        counts: of each token.
        types: how many different tokens there could be.
        order: a, not 1.
    """
    used = counts[counts > 0]
    if types < 2 or not len(used):
        return float("nan")
    shares = used / used.sum()
    return float(np.log(np.sum(shares**order)) / (1 - order) / np.log(types))


@dataclass(frozen=True)
class Use:
    """How the vocabulary is used.

    `tokens`: how many ids text can become: no special tokens, gaps, scaffolds or bytes that UTF-8 does not have. `never`: ids
    of these that did not come out. `rare`: ids that came out less than RARE times, the rarest first. `special`: special
    tokens, apart. `gaps`: ids that stand for nothing.
    """

    tokens: int
    never: tuple[int, ...]
    rare: tuple[int, ...]
    special: int
    gaps: int


def use(vocabulary: Vocabulary, counts: Counts) -> Use:
    """Return which tokens never or rarely come out: candidates for being under-trained in a model.

    Land and Bartolo 2024, "Fishing for Magikarp", arXiv 2405.05417, find such tokens in models; in these texts they can only be
    suspected, and what is rare here may be common in others.
    """
    ordinary = _ordinary(vocabulary)
    special = set(vocabulary.special_tokens.values())
    gaps = sum(1 for i, token in enumerate(vocabulary.tokens[: vocabulary.size]) if not token and i not in special)
    never = ordinary[counts[ordinary] == 0]
    rare = ordinary[(counts[ordinary] > 0) & (counts[ordinary] < RARE)]
    rare = rare[np.argsort(counts[rare], kind="stable")]
    return Use(len(ordinary), tuple(never.tolist()), tuple(rare.tolist()), len(special), gaps)


def _ordinary(vocabulary: Vocabulary) -> Counts:
    """Return the ids that text can become, ascending."""
    tokens = enumerate(vocabulary.of_text()[: vocabulary.size])
    return np.array([i for i, token in tokens if token and not (len(token) == 1 and token[0] in IMPOSSIBLE)], np.int64)


def find_unreachable(vocabulary: Vocabulary, encoder: FlatEncoder, table: Speller) -> Counts:
    """Return the tokens that their own text does not become, int64, ascending: no text that is just them gives them.

    Tokens that are part of a character only are left out, as no text is.
    """
    known = vocabulary.of_text()
    wanted = [i for i in _ordinary(vocabulary).tolist() if _is_text(known[i])]
    expected = np.array(wanted, np.int64)
    ids, places = encoder.encode(*table.decode(expected.astype(np.uint32), np.arange(len(wanted) + 1)))
    single = np.diff(places) == 1
    reached = np.zeros(len(expected), bool)
    reached[single] = ids[places[:-1][single]] == expected[single]
    return expected[~reached]


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class Superwords:
    """Tokens with letters or digits on both sides of white space; scripts that put no space between words have none.

    `ids`: all of them. `longest`: the longest by bytes, of equal length the most used. `most_used`: by count. `token_share`,
    `byte_share`: of all tokens that came out, and of the bytes they stand for. `words`: number of tokens by how many words they
    hold.
    """

    ids: tuple[int, ...]
    longest: tuple[int, ...]
    most_used: tuple[int, ...]
    token_share: float
    byte_share: float
    words: Mapping[int, int]


def superwords(vocabulary: Vocabulary, counts: Counts, shown: int) -> Superwords:
    """Return the superwords of a vocabulary (Liu et al. 2025, arXiv 2503.13423), `shown` of them in each list."""
    known = vocabulary.ordinary()[: vocabulary.size]
    ids = [i for i, token in enumerate(known) if is_superword(token)]
    sizes = np.array([len(token) for token in known], np.int64)
    words: dict[int, int] = {}
    for i in ids:
        number = len(known[i].decode(errors="replace").split())
        words[number] = words.get(number, 0) + 1
    used = counts[: len(known)]
    tokens, text = int(used.sum()), int(used @ sizes)
    return Superwords(
        tuple(ids),
        tuple(sorted(ids, key=lambda i: (-sizes[i], -used[i], i))[:shown]),
        tuple(sorted((i for i in ids if used[i]), key=lambda i: (-used[i], i))[:shown]),
        int(used[ids].sum()) / tokens if tokens and ids else 0.0,
        int((used * sizes)[ids].sum()) / text if text and ids else 0.0,
        {number: words[number] for number in sorted(words)},
    )


def token_spans(vocabulary: Vocabulary, encoder: FlatEncoder, text: str) -> tuple[Ids, Offsets, bytes]:
    """Return the ids of one text, where each token's bytes begin, int64 [tokens + 1], and these bytes: those of the text, or what
    the normalizer made of it."""
    data = np.frombuffer(text.encode(), np.uint8)
    ids, _ = encoder.encode(data, np.array([0, len(data)], np.int64))
    if isinstance(encoder, LibraryEncoder):
        return *encoder.spans(text), text.encode()
    parts = [vocabulary.tokens[i] for i in ids.tolist()]
    ends = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    return ids, ends, b"".join(parts)


def order_by_bytes(groups: Sequence[str], sizes: Counts) -> list[int]:
    """Return the numbers of groups, the one with most bytes first, equal ones by name."""
    return sorted(range(len(groups)), key=lambda i: (-int(sizes[i]), groups[i]))
