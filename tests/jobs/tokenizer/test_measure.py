"""The command: tokenizers on a build's documents, its table, its page, its JSON, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gristmill.tokenizer.files import load
from gristmill.tokenizer.patterns import find_pattern, pre_tokenizer
from jobs.__main__ import main
from jobs.tokenizer.measure import names
from tests.jobs.reading import Reader
from tests.jobs.tokenizer.test_train import table, write_build

ENGLISH = ["The cat sat on the mat and the dog sat on the cat's <b>hat</b> & mat.\n" * 20, "in the house of the cat " * 40] * 6
FRENCH = ["Le chat est assis sur le tapis, et le chien sur l'étagère. " * 25, "à la maison du chat, été comme hiver " * 30] * 4
JAPANESE = ["猫はマットの上に座った。犬は帽子の上に座った。\n" * 20] * 3


def train(texts, folder, size, pattern="llama3"):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(find_pattern(pattern, "pattern"))
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a build of documents in three languages and two tokenizers."""
    folder = tmp_path_factory.mktemp("measure")
    texts = [f"{text}{i}" for i, text in enumerate([*ENGLISH, *FRENCH, *JAPANESE])]
    languages = ["en"] * len(ENGLISH) + ["fr"] * len(FRENCH) + ["ja"] * len(JAPANESE)
    write_build(folder / "texts", [table(texts, languages)])
    train(ENGLISH * 3 + FRENCH, folder / "words", 340)
    train(ENGLISH, folder / "lines", 330, pattern=r"\n")
    return folder


@pytest.fixture
def measured(place, monkeypatch, capsys):
    """Return a function that runs the command in the folder and gives its exit code and streams."""
    monkeypatch.chdir(place)

    def run(*arguments):
        code = main(["measure-tokenizer", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_figures_are_those_of_the_library(place, measured):
    code, out, _ = measured("words", "lines", "--on", "texts", "--baseline", "lines", "--json")
    assert code == 0
    found = json.loads(out)
    texts = [f"{text}{i}" for i, text in enumerate([*ENGLISH, *FRENCH, *JAPANESE])]
    size = sum(len(text.encode()) for text in texts)
    assert (found["documents"], found["bytes"], found["baseline"]) == (len(texts), size, "lines")
    assert list(found["languages"]) == ["en", "fr", "ja"]
    tokens = {}
    for each in found["tokenizers"]:
        library = Tokenizer.from_file(str(place / each["name"] / "tokenizer.json"))
        encoded = library.encode_batch(texts)
        tokens[each["name"]] = sum(len(e.ids) for e in encoded)
        assert each["tokens"] == tokens[each["name"]]
        assert each["bytes_per_token"] == pytest.approx(size / each["tokens"])
        used = {i for e in encoded for i in e.ids}
        assert not used & set(each["vocabulary"]["never"])
        assert each["vocabulary"]["tokens"] == library.get_vocab_size() - 1 - 13
        assert each["vocabulary"]["tokens"] - len(each["vocabulary"]["never"]) == len(used)
        assert each["round_trip"] == {"documents": len(texts), "same": len(texts)}
        assert each["languages"]["en"]["premium"] == 1
    words, lines = found["tokenizers"]
    assert words["nsl"] == pytest.approx(tokens["words"] / tokens["lines"])
    assert lines["nsl"] == 1
    assert words["superwords"]["tokens"] == 0 < lines["superwords"]["tokens"]
    assert "mixture" not in words


def test_the_table_and_the_page(place, measured):
    code, out, errors = measured("words", "lines", "--on", "texts", "--mixture", "--page", "out/page.html")
    assert code == 0, errors
    lines = out.splitlines()
    assert lines[-1] == "page out/page.html"
    assert re.match(r"words +340 ", lines[1])
    assert any(re.match(r"ja +[\d,]+ +[\d.]+ +[\d.]+ ", line) for line in lines)
    # lines was trained across spaces by a pattern that is not the published one of a second stage: no mixture, and why.
    assert any(line.startswith("no mixture of lines: ") and "first stage" in line for line in lines)
    shares = [float(match[1]) for line in lines if (match := re.match(r"(?:en|fr|ja) +([\d.]+)%$", line))]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares[0] > shares[1] > shares[2]

    text = (place / "out/page.html").read_text()
    page = Reader(text)
    assert [p.name for p in (place / "out").iterdir()] == ["page.html"]
    sections = [found["id"] for name, found in page.elements if name == "section" and "id" in found]
    assert sections == ["overview", "languages", "vocabulary", "consistency", "superwords", "text", "mixture"]
    assert not [value for _, value in page.attributes("src")]
    assert all(value.startswith("#") for _, value in page.attributes("href"))
    assert "<b>hat</b>" not in text
    # The text by token is the text, and says of each token its id.
    vocabulary = load("words")
    hints = [value for name, value in page.attributes("title") if name == "span" and value.startswith("id ")]
    assert all(0 <= int(hint.split()[1]) < vocabulary.size for hint in hints)
    assert "in the house of the cat in the house of the cat" in page.text
    measured("words", "lines", "--on", "texts", "--mixture", "--page", "out/again.html")
    assert (place / "out/again.html").read_text() == text


def test_a_build_without_languages_is_one_group(place, measured, tmp_path):
    write_build(tmp_path / "plain", [table(ENGLISH[:2])])
    code, out, _ = measured("words", "--on", str(tmp_path / "plain"), "--json")
    assert code == 0
    assert list(json.loads(out)["languages"]) == ["all"]
    code, out, _ = measured("words", "--on", str(tmp_path / "plain"), "--mixture", "--page", str(tmp_path / "p.html"))
    assert code == 0
    assert "no mixture of words: a mixture needs text of two groups at least" in out


def test_rare_languages_are_one_group_and_unnamed_ones_have_a_name(place, measured, tmp_path):
    texts = [chr(ord("a") + i) * (1000 - i) for i in range(20)]
    write_build(tmp_path / "many", [table(texts, [None, *(f"x{i:02}" for i in range(19))])])
    _, out, _ = measured("words", "--on", str(tmp_path / "many"), "--json")
    found = json.loads(out)["languages"]
    assert len(found) == 13
    assert "unknown" in found
    assert found["others"]["documents"] == 8


def test_names_are_the_shortest_that_differ():
    assert names(["a/b/", "a/c/tokenizer.json"]) == ["b", "c"]
    assert names(["x/8k", "y/8k", "y/16k"]) == ["x/8k", "y/8k", "y/16k"]


@pytest.fixture
def mistakes(place, tmp_path):
    """Return the folder of broken inputs: a tokenizer that is not byte-level, and builds without documents or text."""
    data = json.loads((place / "words/tokenizer.json").read_text())
    data["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (tmp_path / "level").mkdir()
    (tmp_path / "level/tokenizer.json").write_text(json.dumps(data))
    (tmp_path / "bytes").mkdir()
    text = (place / "words/tokenizer.json").read_text()
    (tmp_path / "bytes/tokenizer.json").write_text(re.sub(r'"h": ?\d+', '"日":999', text, count=1))
    write_build(tmp_path / "none", [table([], pa.array([], pa.string()))])
    write_build(tmp_path / "blank", [table(["", ""], ["en", "en"])])
    shutil.copytree(place / "words", tmp_path / "words")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--on", "texts"], r"tokenizer 'nowhere'.*does not exist"),
        (["{0}/level", "--on", "texts"], r"key added_tokens gives '<\|end\|>' the id 0, which 'a' has in model"),
        (["{0}/bytes", "--on", "texts"], r"tokenizer .*bytes'.*key model\."),
        (["words", "--on", "nowhere"], r"no finished build of documents"),
        (["words", "--on", "{0}/none"], r"holds no documents|without any text"),
        (["words", "--on", "{0}/blank"], r"without any text"),
        (["words", "--on", "texts", "--baseline", "bpe"], r"--baseline 'bpe' is none of the tokenizers: words"),
        (["words", "words/", "--on", "texts"], r"'words/' is named twice"),
        (["words", "--on", "texts", "--bytes", "0"], r"--bytes must be at least 1"),
        (["words", "--on", "texts", "--bytes", "5"], r"less than any document"),
        (["words", "--on", "texts", "--seed", "-1"], r"--seed must be at least 0"),
        (["words", "--on", "texts", "--first-stage", "gpt2"], r"give --mixture too"),
        (
            ["words", "--on", "texts", "--mixture", "--first-stage", "gtp2"],
            r"--first-stage has no pattern 'gtp2'; did you mean 'gpt2'",
        ),
        (["words", "--on", "texts", "--page", "texts"], r"--page 'texts' is a folder"),
    ],
)
def test_mistakes_end_with_one_message(measured, mistakes, arguments, message):
    code, out, errors = measured(*(argument.format(mistakes) for argument in arguments))
    assert code == 2
    last = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert re.search(message, last[0]), last[0]
    assert "page " not in out


def test_the_commands_list_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "measure-tokenizer" in capsys.readouterr().out


def test_the_default_page_is_where_the_help_says(place, measured):
    measured("words", "--on", "texts")
    assert Path("build/measure-tokenizer.html").is_file()
