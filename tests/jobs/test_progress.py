"""What is shown of a job's progress where there is no terminal: plain lines, on standard error, none too many."""

import re
from types import SimpleNamespace

import pytest

from jobs import progress
from jobs.progress import BuildProgress, TrainingLog, TrainingProgress, short


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test lets pass."""
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.value))
    return now


def printed(capsys):
    out, errors = capsys.readouterr()
    assert out == "" and "\x1b" not in errors
    return errors.splitlines()


def test_a_build_tells_a_step_every_few_seconds_and_its_end(capsys, clock):
    step = SimpleNamespace(name="0 warc-shards", units=range(4))
    unit = SimpleNamespace(ledger=[{"in": 30}])
    with BuildProgress() as shown:
        shown.step(step, 3)
        for seconds in (1, 5, 3):
            clock.value += seconds
            shown.unit(step, unit)
        shown.step(step, 0)
        shown.failed(step, "a.gz", SimpleNamespace(message="OSError: broken\ndetails"))
    assert printed(capsys) == [
        "0 warc-shards: 3 of 4 to do",
        "0 warc-shards: 2/3 10 documents/s 6 s, 3 s left",
        "0 warc-shards: 3/3 10 documents/s 9 s",
        "0 warc-shards: all 4 done before",
        "0 warc-shards: a.gz failed: OSError: broken",
    ]


def test_training_tells_how_far_a_step_is_and_what_is_left(capsys, clock):
    with TrainingProgress() as shown:
        for done in (0, 500, 1000):
            shown("count", done, 1000, "words")
            clock.value += 10
        shown("merge", 0, 0, "merges")
        shown.say("trained")
    assert printed(capsys) == [
        "count: 500 of 1,000 words, 50 words/s, 10 s left",
        "count: 1,000 of 1,000 words, 50 words/s, 0 s left",
        "merge: 0 merges",
        "trained",
    ]


def test_the_log_of_a_model_leaves_the_first_step_out_of_its_rate(capsys, clock):
    log = TrainingLog(steps=10, tokens=1000)
    clock.value += 60  # compiling
    log.step(1, 5.0, 1.0, 1e-3)
    for step in range(2, 11):
        clock.value += 1
        log.step(step, 4.0, 0.5, 1e-3)
    lines = printed(capsys)
    assert lines[0] == "step 6 of 10: loss 4.0000, gradient 0.500, rate 1.00e-03, 1,000 tokens/s, 4 s left"
    assert len(lines) == 2 and re.match(r"step 10 of 10: .* 1,000 tokens/s, 0 s left", lines[1])


def test_counts_are_short():
    assert [short(n) for n in (950, 12_300, 4_600_000, 3.2e9)] == ["950", "12,300", "4.6 M", "3.2 G"]
