"""Policies by name: what papers and methods select, each with where it is from.

Reads the few parameters that a config gives beside `scheme`; returns a `Policy`, which is all that the rest knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from gristmill.json_values import Json
from gristmill.selection.policy import Cap, Direction, Per, Policy, Scope, Signal, Term, Unit

Name = Literal["rho1", "rho1_offline", "self_reference", "eslm", "shad", "contrast", "moore_lewis"]


def rho1(*, reference: str, keep: float = 0.6) -> Policy:
    """Rho-1 (Lin et al. 2024, arXiv 2404.07965): the reader keeps the `keep` of a batch with the highest excess loss.

    The excess is the loss of the model in training, which is known only there, minus that of `reference`. So nothing is selected
    offline; the reference's loss is the score, and the manifest says what is to be done with it.
    """
    return Policy(score=(Term(model=reference),), direction="high", keep=keep, online=True)


def rho1_offline(
    *, base: str, reference: str, keep: float = 0.6, unit: Unit = "tokens", per: Per = "token", scope: Scope = "global"
) -> Policy:
    """Rho-1's excess loss with a base model for the one in training, as in TokenCleaning (Pang et al. 2025, arXiv 2502.01968).

    Loss of `base` minus loss of `reference`: high where the curated documents have taught the reference something.
    """
    score = (Term(model=base), Term(model=reference, weight=-1.0))
    return Policy(score=score, direction="high", per=per, keep=keep, unit=unit, scope=scope)


def self_reference(
    *, model: str, keep: float = 0.7, unit: Unit = "tokens", per: Per = "token", scope: Scope = "global"
) -> Policy:
    """Rho-1's selection by the reference alone (arXiv 2404.07965): low loss and low entropy.

    Each of the two keeps 70%, from all tokens by itself; a token must be in both. Half of them by loss alone did worse than all.
    """
    members = (
        Policy(score=(Term(model=model, signal=signal),), direction="low", per=per, keep=keep, unit=unit, scope=scope)
        for signal in SIGNALS
    )
    return Policy(all_of=tuple(members))


def eslm(
    *,
    model: str,
    signal: Signal = "nll",
    keep: float = 0.6,
    unit: Unit = "tokens",
    per: Per = "token",
    scope: Scope = "global",
    cap: Cap | None = None,
) -> Policy:
    """ESLM (Bal et al. 2025, arXiv 2505.19893): tokens at or above the α-quantile of loss or entropy, the value at risk.

    `keep` is 1 − α. The paper takes the loss of the model in training; here it is that of `model`, such as a base model. It keeps
    what is hard, noise too: `cap` takes out what a reference model cannot predict either, which is no part of the paper.
    """
    return Policy(
        score=(Term(model=model, signal=signal),), direction="high", per=per, keep=keep, unit=unit, scope=scope, cap=cap
    )


def shad(*, shuffled: str, original: str, threshold: float = 0.0) -> Policy:
    """SHAD (Ye et al. 2024, arXiv 2412.14780): tokens that a model tuned on shuffled pairs predicts worse than before.

    Loss of `shuffled`, the original tuned a little on inputs paired with outputs of others, minus loss of `original`. What such
    tuning makes easier, 0 and below, is boilerplate: the same whatever it answers.
    """
    score = (Term(model=shuffled), Term(model=original, weight=-1.0))
    return Policy(score=score, direction="high", threshold=threshold)


def contrast(
    *,
    positive: str,
    negative: str,
    direction: Direction,
    beta: float = 1.0,
    keep: float = 0.6,
    unit: Unit = "tokens",
    per: Per = "token",
    scope: Scope = "global",
) -> Policy:
    """Contrast of two models, as cDPO finds critical tokens (Lin et al. 2024, arXiv 2411.19943).

    (1 + β) · loss of `positive` − β · loss of `negative`, models of right and of wrong trajectories: high are the critical
    tokens, which the negative model is likely to say and the positive is not. So `low` leaves these out, `high` takes them.
    """
    score = (Term(model=positive, weight=1.0 + beta), Term(model=negative, weight=-beta))
    return Policy(score=score, direction=direction, per=per, keep=keep, unit=unit, scope=scope)


def moore_lewis(
    *, domain: str, general: str, keep: float = 0.6, unit: Unit = "tokens", per: Per = "token", scope: Scope = "global"
) -> Policy:
    """Cross-entropy difference (Moore and Lewis 2010, ACL P10-2041): in-domain minus general, low is good.

    Of two language models of one kind, such as n-gram models, of tokens instead of sentences.
    """
    score = (Term(model=domain), Term(model=general, weight=-1.0))
    return Policy(score=score, direction="low", per=per, keep=keep, unit=unit, scope=scope)


SIGNALS: tuple[Signal, Signal] = ("nll", "entropy")
SCHEMES: dict[str, Callable[..., Policy]] = {
    "rho1": rho1,
    "rho1_offline": rho1_offline,
    "self_reference": self_reference,
    "eslm": eslm,
    "shad": shad,
    "contrast": contrast,
    "moore_lewis": moore_lewis,
}
"""The ready policies by their names in a config."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A policy by the name of its scheme, with the scheme's parameters; those left out have the scheme's own values.

    `rho1`: reference, keep. `rho1_offline`: base, reference, keep, unit, per, scope. `self_reference`: model, keep, unit, per,
    scope. `eslm`: model, signal, keep, unit, per, scope, cap. `shad`: shuffled, original, threshold. `contrast`: positive,
    negative, direction, beta, keep, unit, per, scope. `moore_lewis`: domain, general, keep, unit, per, scope.
    """

    scheme: Name
    model: str | None = None
    base: str | None = None
    reference: str | None = None
    shuffled: str | None = None
    original: str | None = None
    positive: str | None = None
    negative: str | None = None
    domain: str | None = None
    general: str | None = None
    signal: Signal | None = None
    direction: Direction | None = None
    beta: float | None = None
    per: Per | None = None
    keep: float | None = None
    unit: Unit | None = None
    threshold: float | None = None
    scope: Scope | None = None
    cap: Cap | None = None

    def __post_init__(self) -> None:
        """Check that the scheme takes what is given; see `Policy` for the values."""
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme {self.scheme!r} is unknown; known are {', '.join(SCHEMES)}")
        takes = inspect.signature(SCHEMES[self.scheme]).parameters
        given = self.given()
        unknown = [name for name in given if name not in takes]
        if unknown:
            raise ValueError(f"{unknown[0]} is no parameter of scheme {self.scheme}; it takes {', '.join(takes)}")
        missing = [name for name, each in takes.items() if each.default is each.empty and name not in given]
        if missing:
            raise ValueError(f"scheme {self.scheme} needs {' and '.join(missing)}; it takes {', '.join(takes)}")
        self.policy()

    def given(self) -> dict[str, Json]:
        """Return the scheme's parameters that are given."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "scheme"}
        return {name: value for name, value in values.items() if value is not None}

    def policy(self) -> Policy:
        """Return what it stands for."""
        return SCHEMES[self.scheme](**self.given())
