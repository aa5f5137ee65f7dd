"""Tokenizers that are no plain byte-level BPE, as others publish them, and texts to encode."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

EOS = "<|endoftext|>"
TEXTS = ["the cat sat on the mat", "", "日本語 naïve 🐈", f"a literal {EOS} in text", " ", "x" * 3000, "the cat\r\n\tsat"]


def qwen(data):
    """A normalizer, and an added token that is not special, as Qwen's tokenizers have them."""
    data["normalizer"] = {"type": "NFC"}
    data["added_tokens"].append(data["added_tokens"][0] | {"id": 300, "content": "<tool>", "special": False})


def lstrip(data):
    """The same, and the white space before that token belongs to it."""
    qwen(data)
    data["added_tokens"][-1]["lstrip"] = True


def prefix_space(data):
    data["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True


def of_sentences(tokenizer, trainer):
    """A tokenizer of another kind, trained."""
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(["<s>", EOS])
    return tokenizer


def llama2():
    vocab = {name: i for i, name in enumerate(["<unk>", "<s>", EOS, *(f"<0x{byte:02X}>" for byte in range(256))])}
    for token in ("▁", *"thecaton", "th", "▁th", "▁the", "▁c", "at", "▁cat"):
        vocab.setdefault(token, len(vocab))
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("▁", "c"), ("a", "t"), ("▁c", "at")]
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<s>", EOS])
    return tokenizer


def t5():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    return of_sentences(tokenizer, trainer)


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return of_sentences(tokenizer, trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]"], show_progress=False))
