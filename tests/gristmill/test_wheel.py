"""The wheel as training code installs it: the reader beside numpy, pyarrow and fsspec alone, a tokenizer with its extra."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.tokenizer import ScaffoldBpe, Tokenizer
from gristmill.tokenizer.files import save
from gristmill.tokenizer.training.corpus import make_corpus
from stages.encode.encode import Encode
from tests.conftest import ROOT
from tests.gristmill.builds import documents, publish

READER = ("numpy", "pyarrow", "fsspec")
TOKENIZER = (*READER, "numba", "llvmlite", "tokenizers")
ONLY_OURS = """
class Others:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("pipeline", "stages", "jobs", "tests", "benchmarks"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Others)
"""
TEXTS = ["the cat sat on the mat, and the dog sat on the cat " * 3, "日本語 naïve 🐈", "the hat"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds; it is made of a copy, as building leaves files beside the sources."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    shutil.copytree(ROOT / "gristmill", sources / "gristmill", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(sources)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (file,) = out.glob("gristmill-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(out / "site")
    return out / "site"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that no `tokenizer.json` gives the ids of."""
    folder = tmp_path_factory.mktemp("scaffold")
    vocabulary = ScaffoldBpe(vocab_size=290, min_frequency=1).train(make_corpus(TEXTS))
    assert vocabulary.scaffolds and not vocabulary.standard
    return save(vocabulary, folder)


def run(place: Path, packages: tuple[str, ...], folder: Path, program: str) -> str:
    """Run a program that finds these packages and `gristmill` in `place`, no others, and return what it printed."""
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        for found in (Path(spec.origin).parent, Path(spec.origin).parents[1] / f"{name}.libs"):
            if found.is_dir():
                (folder / found.name).symlink_to(found)
    begin = f"import sys\nsys.path += [{str(place)!r}, {str(folder)!r}]\n{ONLY_OURS}"
    command = [sys.executable, "-I", "-S", "-c", begin + program]  # -S: no site-packages
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_reader_needs_three_packages(wheel: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    publish([[documents([[5, 6, 7, 1], [8, 9, 1] * 20])]], build)
    program = f"""
from gristmill import TokenDataset, TokenLoader
import gristmill.tokenizer
dataset = TokenDataset.open({str(build)!r}, sequence_length=8, seed=1)
batches = [batch.input_ids.tolist() for _, batch in zip(range(4), TokenLoader(dataset, 2))]
print(len(batches), sorted({{i for batch in batches for row in batch for i in row}}))
assert gristmill.__file__.startswith({str(wheel)!r})
"""
    (tmp_path / "packages").mkdir()
    assert run(wheel, READER, tmp_path / "packages", program) == "4 [1, 5, 6, 7, 8, 9]"


@pytest.mark.parametrize(("packages", "missing"), [(READER, "tokenizers"), ((*READER, "tokenizers"), "numba")])
def test_what_is_not_installed_names_its_extra(tokenizer: Path, tmp_path: Path, packages: tuple[str, ...], missing: str) -> None:
    program = f"""
from gristmill.tokenizer import Tokenizer
def encode():
    Tokenizer.open({str(tokenizer)!r}).encode(["the cat"])
def torch():
    import gristmill.torch
for do in (encode, torch):
    try:
        do()
    except ModuleNotFoundError as error:
        print(error.name, error, sep=": ")
"""
    assert run(ROOT, packages, tmp_path, program).split("\n") == [
        f"{missing}: No module named '{missing}'; install it with: pip install 'gristmill[tokenizer]'",
        "torch: No module named 'torch'; install it with: pip install 'gristmill[torch]'",
    ]


def test_the_wheel_holds_the_sources(wheel: Path) -> None:
    held, ours = (
        {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.suffix in (".py", ".typed")}
        for place in (wheel / "gristmill", ROOT / "gristmill")
    )
    assert held == ours


def test_with_its_extra_a_tokenizer_gives_the_ids_of_a_build(tokenizer: Path, tmp_path: Path) -> None:
    # From the sources, which the wheel holds: loops that numba has compiled for one path it compiles anew for another.
    stage = Encode(tokenizer=str(tokenizer))
    table = stage.open()(pa.table({"text": pa.array(TEXTS, pa.string())}))
    eos = Tokenizer.open(tokenizer).special_tokens["<|endoftext|>"]
    program = f"""
from gristmill.tokenizer import Tokenizer
tokenizer = Tokenizer.open({str(tokenizer)!r})
ids, offsets = tokenizer.encode({TEXTS!r})
print([ids[begin:end].tolist() + [{eos}] for begin, end in zip(offsets, offsets[1:])])
assert tokenizer.decode(ids) == {"".join(TEXTS)!r}
"""
    assert run(ROOT, TOKENIZER, tmp_path, program) == str(table["input_ids"].to_pylist())
