"""The loops of MinHash against a slow transcription, its estimates against exact similarities, its verdicts under any split."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.minhash import kernels
from stages.dedup.minhash import DedupMinhash, band_keys, estimate, lane_functions, least_agreements, narrow, signer
from tests.random_examples import examples
from tests.stages.dedup import slow_minhash as slow
from tests.stages.dedup.in_memory import run, table

LANES = 112
ODD = (
    "Été ÉTÉ naïve—word x²; ПРИВЕТ мир, 日本語のテキスト、ภาษาไทย 한국어 텍스트 हिन्दी। عربي؟ a1b2_c3 🙂🙃 "
    "it's U.S.\u200bA\u00a0\ufeffz 𠀀𠀁 Ⅷ"
)


def sign(texts, ngram=5, lanes=LANES, seed=0, normalize=True):
    return signer(ngram, lanes, seed, normalize=normalize)(table(texts)["text"])


def marks(text):
    """Words that make texts of about equal length unlike."""
    return [f"{text}{i}" for i in range(60)]


class TestSignatures:
    @examples(60)
    @given(
        st.lists(st.text(st.sampled_from("aZ9 .\n_éß、。漢かกກ한🙂\u00a0\u2028𠀀"), max_size=40), max_size=5), st.integers(1, 7)
    )
    def test_equal_the_transcription(self, texts, ngram):
        minhashes, words = sign(texts, ngram, lanes=6, seed=3)
        assert minhashes.tolist() == [slow.minhashes(text, ngram, 6, 3) for text in texts]
        assert words.tolist() == [len(slow.words(text)) for text in texts]

    @examples(60)
    @given(st.text(max_size=60), st.booleans())
    def test_equal_the_transcription_on_any_unicode(self, text, normalize):
        text = text.encode("utf-8", "ignore").decode()
        found = sign([text], 2, lanes=4, normalize=normalize)
        assert found[0].tolist() == [slow.minhashes(text, 2, 4, 0, normalize)]
        assert found[1].tolist() == [len(slow.words(text, normalize=normalize))]

    @pytest.mark.parametrize("ngram", [1, 5, 64])
    @pytest.mark.parametrize("words", [2047, 2048, 2049, 2052, 2053, 4096 + 5, 7001])
    def test_equal_the_transcription_across_buffers(self, words, ngram):
        text = " ".join(f"w{i * 7919 % 100_003}" for i in range(words)) + "漢字"
        minhashes, counts = sign(["x", text, "y z"], ngram, lanes=3)
        assert minhashes.tolist() == [slow.minhashes(t, ngram, 3, 0) for t in ("x", text, "y z")]
        assert counts.tolist() == [1, words + 2, 2]

    def test_equal_the_transcription_on_the_crawl(self, crawl):
        texts = [*crawl[::60], ODD]
        assert sign(texts, lanes=8)[0].tolist() == [slow.minhashes(text, 5, 8, 0) for text in texts]

    def test_words_are_what_the_rule_says(self):
        assert slow.words(ODD)[:9] == [
            unicodedata.normalize("NFD", word) for word in ("été", "été", "naïve", "word", "x²", "привет", "мир", "日", "本")
        ]
        plain = ["Été", "ÉtÉ", "naïve", "word", "x²", "ПРИВЕТ", "мир", "日", "本"]
        assert slow.words(ODD, normalize=False)[:9] == plain
        assert sign([ODD], normalize=False)[1].tolist() == [len(slow.words(ODD, normalize=False))]
        assert sign([ODD])[1].tolist() == [len(slow.words(ODD))]

    def test_estimates_scatter_as_theory_says(self, crawl):
        """Pairs of any similarity, from halves of real texts; the error of 112 lanes of 8 bits is binomial."""
        chance = random.Random(0)
        halves = [text.split()[:600] for text in dict.fromkeys(crawl) if len(text.split()) > 200]
        pairs = []
        for _ in range(200):
            a, b = chance.sample(halves, 2)
            cut = chance.randrange(len(a))
            pairs.append((" ".join(a), " ".join(a[:cut] + b[: len(a) - cut])))
        true = np.array([slow.jaccard(a, b) for a, b in pairs])
        assert ((true > 0.2) & (true < 0.9)).sum() > 70
        share = true * 255 / 256 + 1 / 256
        theory = np.sqrt(np.mean(share * (1 - share) / LANES)) * 256 / 255
        left, right = (sign([pair[side] for pair in pairs])[0] for side in (0, 1))
        errors = estimate((narrow(left) == narrow(right)).sum(axis=1), LANES) - true
        assert 0.85 * theory < np.sqrt(np.mean(errors**2)) < 1.15 * theory
        assert abs(np.mean(errors)) < 4 * theory / np.sqrt(len(pairs))
        errors = (left == right).mean(axis=1) - true
        assert 0.85 * theory < np.sqrt(np.mean(errors**2)) < 1.15 * theory

    def test_seed_and_lanes(self):
        assert (sign(["a b c d e f"], seed=0)[0] != sign(["a b c d e f"], seed=1)[0]).all()
        assert (sign(["a b c d e f"], lanes=20)[0] == sign(["a b c d e f"])[0][:, :20]).all()
        multipliers, _ = lane_functions(LANES, 0)
        assert (multipliers % 2 == 1).all()

    def test_a_huge_document_takes_no_more_memory(self):
        code = """if True:
            import resource, pyarrow as pa
            from stages.dedup.minhash import signer
            sign = signer(5, 112, 0)
            text = pa.chunked_array([[" ".join(str(i) for i in range(1_500_000))]])
            sign(pa.chunked_array([["a b c"]]))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            sign(text)
            print(text.nbytes >> 20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
        """
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        size, grown = map(int, done.stdout.split())
        assert size > 9
        assert grown < 4


class TestStars:
    @examples(100)
    @given(
        st.lists(st.lists(st.binary(min_size=4, max_size=4).map(lambda b: bytes(x % 2 for x in b)), min_size=1, max_size=9)),
        st.data(),
    )
    def test_equal_the_transcription(self, buckets, data):
        least, most = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
        rows = [row for bucket in buckets for row in bucket]
        starts = np.cumsum([0, *map(len, buckets)]).astype(np.int64)
        found = [np.zeros(len(rows), np.int64) for _ in range(3)]
        lanes = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 4)
        count = kernels.stars(starts, lanes, least, most, *found)
        edges = list(zip(*(values[:count].tolist() for values in found), strict=True))
        assert edges == [
            (start + a, start + b, agree)
            for start, bucket in zip(starts.tolist(), buckets, strict=False)
            for a, b, agree in slow.stars(bucket, least, most)
        ]

    @pytest.mark.parametrize("threshold", [0.01, 0.5, 0.75, 0.8, 0.999, 1.0])
    def test_least_agreements_is_the_threshold(self, threshold):
        least = least_agreements(threshold, LANES)
        values = estimate(np.arange(LANES + 1), LANES)
        assert values[least] >= np.float32(threshold)
        assert values[least - 1] < threshold

    def test_band_keys_tell_bands_and_lanes_apart(self):
        lanes = np.zeros((2, 12), np.uint32)
        lanes[1, 5] = 1
        keys = band_keys(lanes, 4)
        assert len(set(keys[0].tolist())) == 4
        assert (keys[0] == keys[1]).tolist() == [True, False, True, True]


class TestVerdicts:
    @examples(40)
    @given(data=st.data())
    def test_any_split_gives_the_same(self, data):
        base = [marks("a"), marks("b"), marks("c") + marks("b")[:40]]
        edit = st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(30, 60))
        texts = st.lists(edit.map(lambda e: " ".join(base[e[0]][e[1] : e[2]])) | st.sampled_from(["", "one", "!"]), max_size=10)
        shards = data.draw(st.lists(texts, min_size=1, max_size=3))
        stage = DedupMinhash(ngram=2, bands=6, rows=2, threshold=0.6, max_stars=data.draw(st.sampled_from([1, 16])))

        def cuts(size):
            return data.draw(st.lists(st.integers(0, size), max_size=3))

        assert run(stage, shards, batches=cuts, calls=cuts).equals(run(stage, shards))

    def test_crawl_under_splits(self, crawl):
        shards = [crawl[:420], crawl[420:]]
        whole = run(DedupMinhash(), shards)
        assert whole.equals(run(DedupMinhash(), shards, batches=lambda n: range(7, n, 31), calls=lambda n: range(1, n, 501)))
        assert whole.num_rows > 200

    def test_families_against_all_pairs(self, crawl):
        """Edited copies of real texts: alike ones share a cluster, unlike ones don't, similarities are as stated."""
        chance = random.Random(1)
        families = [text[:4000].split() for text in dict.fromkeys(crawl) if len(text.split()) > 400][:40]
        texts = []
        for rate in (0, 0.001, 0.004, 0.01, 0.03, 0.1):
            texts += [" ".join(w if chance.random() >= rate else f"edit{chance.random()}" for w in words) for words in families]
        texts = list(dict.fromkeys(texts))
        verdicts = {v["row"]: v for v in run(DedupMinhash(), [texts]).to_pylist()}
        root = [int(verdicts[row]["duplicate_of"][1:]) if verdicts.get(row, {}).get("drop") else row for row in range(len(texts))]
        lanes = narrow(sign(texts)[0])
        close = [(a, int(b)) for a in range(len(lanes)) for b in np.flatnonzero((lanes[:a] == lanes[a]).mean(axis=1) > 0.3)]
        similar = {pair: slow.jaccard(texts[pair[0]], texts[pair[1]]) for pair in close}
        alike = [root[a] == root[b] for (a, b), value in similar.items() if value >= 0.9]
        assert len(alike) > 60
        assert np.mean(alike) >= 0.98
        to_kept = np.array([similar.get((row, root[row]), 0) for row in range(len(texts)) if root[row] != row])
        assert len(to_kept) > 60
        assert min(to_kept) > 0.55
        assert np.mean(to_kept < 0.7) < 0.1
        dropped = [row for row in range(len(texts)) if root[row] != row]
        stated = np.array([verdicts[row]["duplicate_jaccard"] for row in dropped])
        best = np.array([max(value for pair, value in similar.items() if row in pair) for row in dropped])
        assert stated.min() >= np.float32(0.75)
        assert np.mean(np.abs(stated - best)) < 0.04

    def test_shared_boilerplate_does_not_merge(self):
        menu = " ".join(marks("menu") + marks("licence"))
        texts = [f"{menu} {' '.join(marks(f'body{i}x'))}" for i in range(40)]
        assert run(DedupMinhash(), [texts]).num_rows == 0
        unverified = run(DedupMinhash(threshold=0.01), [texts])
        assert unverified["drop"].drop_null().length() > 5  # the bands alone would have merged them

    def test_columns_of_a_cluster(self):
        text, other = marks("a"), marks("b")
        near = " ".join([*text[:-1], "changed"])
        verdicts = run(DedupMinhash(), [[" ".join(other), near], [" ".join(text), " ".join(text)]]).to_pylist()
        assert [(v["shard"], v["row"], v["drop"], v["minhash_cluster_size"], v["duplicate_of"]) for v in verdicts] == [
            (0, 1, None, 3, None),
            (1, 0, "near_duplicate", 3, "d1"),
            (1, 1, "near_duplicate", 3, "d1"),
        ]
        assert verdicts[0]["duplicate_jaccard"] is None
        assert all(0.85 < v["duplicate_jaccard"] <= 1 for v in verdicts[1:])

    def test_short_documents(self):
        texts = ["", "", "!?", "…", "Hello", "hello!", "world", "a b c", "A, b: c.", "a b", "b a c"]
        verdicts = run(DedupMinhash(), [texts]).to_pylist()
        assert [(v["row"], v["duplicate_of"]) for v in verdicts] == [(4, None), (5, "d4"), (7, None), (8, "d7")]

    def test_nothing_to_do(self):
        stage = DedupMinhash()
        empty = stage.open()(table([]))
        assert empty.num_rows == 0
        assert empty.schema == stage.open()(table(["a b"])).schema
        assert run(stage, [[], [""]]).num_rows == 0
        assert stage.open()(pa.table({"id": ["a", "b"], "text": ["", ""]})) == empty  # no byte of text at all
        assert stage.settle()([]).num_rows == 0


def test_rows_have_the_documented_types():
    stage = DedupMinhash(bands=3, rows=2)
    expected = pa.schema([("key", pa.uint64()), ("row", pa.int64()), ("id", pa.string()), ("signature", pa.binary(6))])
    rows = stage.open()(table(["a b c", "", "d"]))
    assert rows.schema == expected
    assert rows["row"].to_pylist() == [0, 0, 0, 2, 2, 2]


def test_defaults_cover_the_added_columns():
    stage = DedupMinhash()
    assert set(stage.defaults()) == set(stage.adds())
    assert set(stage.measures()) <= set(stage.adds())


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"ngram": 0}, "ngram is 0; allowed are 1 to 64"),
        ({"bands": 300}, "bands is 300; allowed are 1 to 256"),
        ({"rows": -1}, "rows is -1; allowed are 1 to 64"),
        ({"max_stars": 0}, "max_stars is 0; allowed are 1 to 1024"),
        ({"threshold": 0.0}, "threshold is 0.0; allowed are values above 0"),
        ({"normalize": "lower"}, "normalize is 'lower'; allowed are 'text' and 'none'"),
        ({"threshold": 75}, "threshold is 75; allowed are values above 0"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        DedupMinhash(**parameters)
