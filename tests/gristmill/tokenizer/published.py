"""Small tokenizers put together as published ones are: the same normalizers, pre-tokenizers and post-processors."""

import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.gristmill.tokenizer.slow import TINY, crawl_texts

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
END = "<|endoftext|>"
BYTES = functools.partial(pre_tokenizers.ByteLevel, add_prefix_space=False)


def split(regex):
    return pre_tokenizers.Split(Regex(regex), "isolated")


@functools.cache
def trained(kind):
    """The text of the tokenizer.json of a kind."""
    made = Tokenizer(models.BPE())
    normalizer, steps, added = KINDS[kind]
    made.normalizer = None if normalizer is None else normalizer()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(steps()), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    made.train_from_iterator([*TINY, *crawl_texts(20)], trainer)
    made.add_tokens(added)
    return made.to_str()


KINDS = {
    "qwen": (
        normalizers.NFC,
        lambda: [split(WORDS), BYTES(use_regex=False)],
        [AddedToken("<tool>", normalized=False), AddedToken("</tool>", normalized=False), AddedToken("<|im|>", special=True)],
    ),
    "smollm": (None, lambda: [pre_tokenizers.Digits(individual_digits=True), BYTES(use_regex=True)], []),
    "deepseek": (
        lambda: normalizers.Sequence([]),
        lambda: [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(SIGNS), BYTES(use_regex=False)],
        [AddedToken("<｜User｜>", normalized=False), AddedToken("<｜Assistant｜>", normalized=False)],
    ),
    "coder": (
        lambda: normalizers.Sequence([]),
        lambda: [
            *map(split, (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")),
            pre_tokenizers.Digits(individual_digits=True),
            BYTES(use_regex=False),
        ],
        [],
    ),
    "nested": (
        lambda: normalizers.Sequence([normalizers.Sequence([normalizers.NFC()]), normalizers.Sequence([])]),
        lambda: [pre_tokenizers.Digits(individual_digits=False), BYTES(use_regex=True)],
        [AddedToken("é!", normalized=True), AddedToken("e\u0301e\u0301", normalized=False), AddedToken("Åé", normalized=True)],
    ),
    "lower": (
        lambda: normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Lowercase()]),
        lambda: [BYTES(use_regex=True)],
        [AddedToken("FiX", normalized=True), AddedToken("FIX", normalized=False)],
    ),
    "replacing": (
        lambda: normalizers.Sequence(
            [
                normalizers.Replace("''", '"'),
                normalizers.Replace(Regex(" {2,}"), " "),
                normalizers.Prepend("x"),
                normalizers.NFD(),
            ]
        ),
        lambda: [BYTES(use_regex=True)],
        [],
    ),
}


def with_template(text, first=END):
    """The same with a token before each text, as Llama 3 has it."""
    made = Tokenizer.from_str(text)
    template = processors.TemplateProcessing(
        single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, made.token_to_id(first))]
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return made.to_str()


def changed(text, change):
    """The file after `change(data)`."""
    data = json.loads(text)
    change(data)
    return json.dumps(data, ensure_ascii=False)
