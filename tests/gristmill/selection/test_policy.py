"""Parameters of policies: what goes together, and each mistake with what was found and what is allowed."""

from __future__ import annotations

import pytest

from gristmill.errors import ConfigError
from gristmill.selection.policy import Cap, Policy, Term
from jobs.config import parameters
from jobs.config.yaml_nodes import parse
from stages.score.select import Select

LOSS = (Term(model="m"),)
HIGH = Policy(score=LOSS, direction="high", keep=0.5)


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused(keep):
    with pytest.raises(ValueError, match=r"^keep is .*; allowed are shares above 0 and up to 1$"):
        Policy(score=LOSS, direction="high", keep=keep)
    with pytest.raises(ValueError, match=r"^quantile is .*; allowed are shares above 0 and up to 1$"):
        Cap(model="m", quantile=keep)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "score names no signal; give one or more of {model, signal, weight}, or all_of"),
        ({"score": LOSS}, "direction is missing; say whether high or low scores are worth training on"),
        ({"score": LOSS, "direction": "up", "keep": 1}, "direction is 'up'; allowed are high, low"),
        ({"score": (*LOSS, Term(model="m", weight=2)), "direction": "low"}, "score names a signal twice: ref_loss.m, ref_loss.m"),
        ({"score": LOSS, "direction": "low"}, "keep is None and threshold None; give one of the two"),
        (
            {"score": LOSS, "direction": "low", "keep": 0.5, "threshold": 1.0},
            "keep is 0.5 and threshold 1.0; give one of the two",
        ),
        ({"score": LOSS, "direction": "low", "threshold": float("nan")}, "threshold is nan; allowed are finite numbers"),
        ({"score": LOSS, "direction": "low", "threshold": 1, "unit": "bytes"}, "threshold needs neither unit nor scope"),
        ({"score": LOSS, "direction": "low", "threshold": 1, "scope": "document"}, "threshold needs neither unit nor scope"),
        ({"score": LOSS, "direction": "low", "keep": 1, "per": "word"}, "per is 'word'; allowed are token, byte"),
        ({"score": LOSS, "direction": "low", "keep": 1, "unit": "words"}, "unit is 'words'; allowed are tokens, bytes"),
        ({"score": LOSS, "direction": "low", "keep": 1, "scope": "batch"}, "scope is 'batch'; allowed are global, shard, doc"),
        ({"score": LOSS, "direction": "low", "keep": 1, "soft": 0}, "soft is 0; allowed are numbers above 0"),
        ({"score": LOSS, "direction": "low", "keep": 1, "scope": "sequence"}, "sequence_tokens is None with scope 'sequence'"),
        ({"score": LOSS, "direction": "low", "keep": 1, "sequence_tokens": 8}, "sequence_tokens is 8 with scope 'global'"),
        (
            {"score": LOSS, "direction": "low", "keep": 1, "scope": "sequence", "sequence_tokens": 0},
            "sequence_tokens is 0; allowed are numbers from 1",
        ),
        ({"score": LOSS, "direction": "low", "threshold": 0, "online": True}, "online selects nothing here: it takes keep"),
        ({"all_of": (HIGH,)}, "all_of has 1 member; give two or more"),
        ({"all_of": (HIGH, HIGH), "keep": 0.5}, "keep beside all_of; give it to each of the members"),
        ({"all_of": (HIGH, Policy(all_of=(HIGH, HIGH)))}, "all_of has a member with all_of or online"),
        ({"all_of": (HIGH, HIGH), "cap": Cap(model="m", quantile=0.5)}, "cap with a quantile beside all_of"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_named(given, message):
    with pytest.raises(ValueError) as found:
        Policy(**given)
    assert str(found.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Term(model="A b"), r"model is 'A b'; allowed are names that match \[a-z0-9\]"),
        (lambda: Term(model="m", signal="loss"), "signal is 'loss'; allowed are nll, entropy"),
        (lambda: Term(model="m", weight=0.0), "weight of 'm' is 0.0; allowed are finite numbers but 0"),
        (lambda: Term(model="m", weight=float("inf")), "weight of 'm' is inf"),
        (lambda: Cap(model="m"), "cap on 'm': give value or quantile, one of the two"),
        (lambda: Cap(model="m", value=1.0, quantile=0.5), "cap on 'm': give value or quantile, one of the two"),
        (lambda: Cap(model="m", value=float("nan")), "value is nan; allowed are finite numbers"),
    ],
    ids=["name", "signal", "zero", "infinite", "no limit", "two limits", "nan"],
)
def test_terms_and_caps_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gates_of_a_policy():
    """A ranking and its cap; the members of all_of with theirs; none online."""
    capped = Policy(score=LOSS, direction="high", keep=0.5, scope="shard", cap=Cap(model="r", quantile=0.9))
    rank, cap = capped.gates()
    assert (rank.keep, rank.direction, rank.scope, rank.pooled) == (0.5, "high", "shard", True)
    assert (cap.keep, cap.direction, cap.scope, cap.score[0].column) == (0.9, "low", "shard", "ref_loss.r")
    both = Policy(all_of=(capped, HIGH), cap=Cap(model="e", signal="entropy", value=2.0))
    assert [gate.score[0].column for gate in both.gates()] == ["ref_loss.m", "ref_loss.r", "ref_loss.m", "entropy.e"]
    assert [term.column for term in both.terms()] == ["ref_loss.m", "ref_loss.r", "entropy.e"]
    online = Policy(score=LOSS, direction="high", keep=0.6, online=True)
    assert online.gates() == () and [term.column for term in online.terms()] == ["ref_loss.m"]
    assert [Policy(score=LOSS, direction="low", keep=0.1, scope=s).gates()[0].pooled for s in ("global", "document")] == [
        True,
        False,
    ]
    assert not Policy(score=LOSS, direction="low", threshold=0.1).gates()[0].pooled


def test_who_needs_bytes():
    def needs(**given):
        return Policy(score=LOSS, direction="high", **given).needs_bytes

    assert [needs(keep=0.5), needs(threshold=1.0), needs(keep=0.5, unit="bytes"), needs(threshold=1.0, per="byte")] == [
        False,
        False,
        True,
        True,
    ]
    assert Policy(all_of=(HIGH, Policy(score=LOSS, direction="low", keep=0.5, unit="bytes"))).needs_bytes


YAML = """
policies:
  excess: {scheme: rho1_offline, base: base, reference: reference, keep: 0.6, unit: bytes}
  own:
    score: [{model: base}, {model: reference, signal: entropy, weight: -1}]
    direction: high
    keep: 0.5
    cap: {model: reference, quantile: 0.95}
  both:
    all_of:
      - {score: [{model: a}], direction: low, keep: 0.7}
      - {score: [{model: a, signal: entropy}], direction: low, keep: 0.7}
tokenizer: build/tokenizers/superbpe-8k
"""


def test_a_config_tells_schemes_from_policies_by_their_keys():
    stage = parameters.build(Select, parse(YAML, "test.yaml"), "stage 'select'")
    plain = stage.plain()
    assert list(plain) == ["both", "excess", "own"]
    assert plain["excess"].unit == "bytes" and [term.weight for term in plain["excess"].score] == [1, -1]
    assert plain["own"].cap == Cap(model="reference", quantile=0.95) and plain["own"].score[1].column == "entropy.reference"
    assert [gate.keep for gate in plain["both"].gates()] == [0.7, 0.7]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("keep: 0.6", "keep: 60", r"test.yaml:3:.*keep is 60.0; allowed are shares above 0 and up to 1"),
        ("keep: 0.5", "keep: 0.0", r"test.yaml:7:.*keep is 0.0; allowed are shares above 0 and up to 1"),
        (
            "rho1_offline",
            "rho2",
            r"test.yaml:3:.*'policies.excess.scheme' must be one of rho1, rho1_offline.*found the text 'rho2'",
        ),
        ("base: base", "bas: base", r"test.yaml:3:.*'policies.excess' has no parameter 'bas'; did you mean 'base'"),
        ("base: base, ", "", r"test.yaml:3:.*scheme rho1_offline needs base; it takes base, reference, keep, unit, per, scope"),
        ("quantile: 0.95", "quantile: 1.5", r"test.yaml:8:.*quantile is 1.5"),
        ("direction: high", "directon: high", r"test.yaml:6:.*'policies.own' has no parameter 'directon'"),
        ("tokenizer: build/tokenizers/superbpe-8k", "scores: true", r"tokenizer is missing; policy 'excess' counts bytes"),
        ("  excess:", "  Excess:", r"name 'Excess' must match"),
        ("  excess:", "  reference:", r"'reference' is the name of a model too; their columns would be one sidecar"),
    ],
    ids=["share", "zero", "scheme", "key", "missing", "quantile", "policy key", "bytes", "name", "model's name"],
)
def test_mistakes_in_a_config_are_found_where_they_are(old, new, message):
    assert YAML.count(old) == 1 or old in ("direction: high",)
    with pytest.raises(ConfigError, match=message):
        parameters.build(Select, parse(YAML.replace(old, new, 1), "test.yaml"), "stage 'select'")
