"""What a policy is: which score ranks tokens, and which of them it selects, as frozen parameters that a config fills.

Reads and writes nothing; `selection.py` does what these say, `schemes.py` has policies of papers by name.

    signals (nll, entropy of named models) → score of a token → gates → selected, or a weight

A policy is one gate, or several that a token must all pass: a cap beside the ranking, the members of `all_of`. Each gate looks at
all candidates by itself, none at what another leaves: with two gates less than each one's share remains. A candidate is a token
with every signal that the policy names; a token without one (NaN) is never selected and counts towards no share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gristmill.format.schema import SCORES_NAME
from gristmill.signals import entropy_column, loss_column

Signal = Literal["nll", "entropy"]
Per = Literal["token", "byte"]
Unit = Literal["tokens", "bytes"]
Direction = Literal["high", "low"]
Scope = Literal["global", "shard", "document", "sequence"]

LOCAL = ("document", "sequence")  # scopes that one document decides


@dataclass(frozen=True, kw_only=True)
class Term:
    """One signal of one model, in nats, and what it is multiplied with in the sum."""

    model: str
    signal: Signal = "nll"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the name and the weight."""
        _name("model", self.model)
        _among("signal", self.signal, ("nll", "entropy"))
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ValueError(f"weight of {self.model!r} is {self.weight!r}; allowed are finite numbers but 0")

    @property
    def column(self) -> str:
        """Return the column that the signal is in."""
        return loss_column(self.model) if self.signal == "nll" else entropy_column(self.model)


@dataclass(frozen=True, kw_only=True)
class Cap:
    """No token whose signal exceeds `value` nats, or the `quantile` of it over the policy's scope, is ever selected.

    The remedy for rankings that keep what is hard because it is noise (ESLM): noise is hard for a reference model too. A quantile
    of 0.95 takes away the highest 5% of tokens.
    """

    model: str
    signal: Signal = "nll"
    value: float | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        """Check that there is one limit."""
        _name("model", self.model)
        _among("signal", self.signal, ("nll", "entropy"))
        if (self.value is None) == (self.quantile is None):
            raise ValueError(f"cap on {self.model!r}: give value or quantile, one of the two")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"value is {self.value!r}; allowed are finite numbers")
        if self.quantile is not None:
            _share("quantile", self.quantile)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How tokens are ranked and which are selected.

    `score`: its terms are added up; `per: byte` divides the sum by the bytes of the token (1 for one that spells nothing),
    without which long tokens rank as hard for their length. `direction`: which end is worth training on.
    `keep`: the share of candidates that is selected, of their tokens or bytes (`unit`); or `threshold`: high takes scores above
    it, low those at most it. Equal scores at the edge of a share: some of them, so many as make up the share.
    `soft`: weights instead of a mask: 1 / (1 + exp(−(score − t) / soft)) with t the threshold, or the score at the edge of the
    share; for `low` the sign is turned. So `soft` is in nats (a byte), and as it goes to 0 the weights become the mask.
    `scope`: what a share is of: all tokens of the build (`global`), those of one input file (`shard`), of one `document`, or of a
    `sequence`: consecutive `sequence_tokens` tokens of a document, from its first one on; the last piece may be shorter.
    `cap`: another gate, see there. `all_of`: policies that a token must all pass (weights are multiplied), instead of a score.
    `online`: selects nothing: the score is what a trainer subtracts from the loss of its model before it keeps the highest
    `keep` of a batch (Rho-1); both are recorded for the reader.
    """

    score: tuple[Term, ...] = ()
    direction: Direction | None = None
    per: Per = "token"
    keep: float | None = None
    unit: Unit = "tokens"
    threshold: float | None = None
    soft: float | None = None
    scope: Scope = "global"
    sequence_tokens: int | None = None
    cap: Cap | None = None
    all_of: tuple[Policy, ...] = ()
    online: bool = False

    def __post_init__(self) -> None:
        """Check each parameter and that they go together."""
        if self.all_of:
            self._check_all_of()
            return
        if not self.score:
            raise ValueError("score names no signal; give one or more of {model, signal, weight}, or all_of")
        if len({(term.model, term.signal) for term in self.score}) < len(self.score):
            raise ValueError(f"score names a signal twice: {', '.join(term.column for term in self.score)}")
        if self.direction is None:
            raise ValueError("direction is missing; say whether high or low scores are worth training on")
        _among("direction", self.direction, ("high", "low"))
        _among("per", self.per, ("token", "byte"))
        _among("unit", self.unit, ("tokens", "bytes"))
        _among("scope", self.scope, ("global", "shard", "document", "sequence"))
        self._check_edge()
        if (self.scope == "sequence") != (self.sequence_tokens is not None):
            raise ValueError(
                f"sequence_tokens is {self.sequence_tokens!r} with scope {self.scope!r}; it goes with scope sequence"
            )
        if self.sequence_tokens is not None and self.sequence_tokens < 1:
            raise ValueError(f"sequence_tokens is {self.sequence_tokens!r}; allowed are numbers from 1")
        if self.online and (self.keep is None or self.soft is not None or self.cap is not None or self.scope != "global"):
            raise ValueError("online selects nothing here: it takes keep, and neither soft, cap nor another scope")

    def _check_edge(self) -> None:
        """Check what says where the edge is."""
        if (self.keep is None) == (self.threshold is None):
            raise ValueError(f"keep is {self.keep!r} and threshold {self.threshold!r}; give one of the two")
        if self.keep is not None:
            _share("keep", self.keep)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold!r}; allowed are finite numbers")
        if self.threshold is not None and (self.unit != "tokens" or self.scope != "global"):
            raise ValueError("threshold needs neither unit nor scope: it is of each token; leave them out, or give keep")
        if self.soft is not None and not 0 < self.soft < math.inf:
            raise ValueError(f"soft is {self.soft!r}; allowed are numbers above 0")

    def _check_all_of(self) -> None:
        """Check that the members alone say what is selected."""
        if len(self.all_of) < 2:
            raise ValueError(f"all_of has {len(self.all_of)} member; give two or more")
        own = Policy.__dataclass_fields__
        given = [name for name in own if name not in ("all_of", "cap") and getattr(self, name) != own[name].default]
        if given:
            raise ValueError(f"{given[0]} beside all_of; give it to each of the members")
        if self.cap is not None and self.cap.quantile is not None:
            raise ValueError("cap with a quantile beside all_of; give it to one of the members, whose scope it takes")
        for member in self.all_of:
            if member.all_of or member.online:
                raise ValueError("all_of has a member with all_of or online; its members are policies with a score that select")

    def gates(self) -> tuple[Gate, ...]:
        """Return the gates that a token must pass: of a score the ranking first, then its cap."""
        if self.all_of:
            return tuple(gate for member in self.all_of for gate in member.gates()) + self._caps()
        if self.online:
            return ()
        assert self.direction is not None
        rank = Gate(
            self.score,
            self.per,
            self.direction,
            self.keep,
            self.unit,
            self.threshold,
            self.soft,
            self.scope,
            self.sequence_tokens,
        )
        return (rank, *self._caps())

    def _caps(self) -> tuple[Gate, ...]:
        if self.cap is None:
            return ()
        term = (Term(model=self.cap.model, signal=self.cap.signal),)
        cap = self.cap
        return (Gate(term, "token", "low", cap.quantile, "tokens", cap.value, None, self.scope, self.sequence_tokens),)

    def terms(self) -> tuple[Term, ...]:
        """Return every signal that is needed, each once."""
        found = [*self.score, *(term for gate in self.gates() for term in gate.score)]
        return tuple({(term.model, term.signal): term for term in found}.values())

    @property
    def weighs(self) -> bool:
        """Tell whether it gives weights instead of a mask."""
        return any(gate.soft is not None for gate in self.gates())

    @property
    def needs_bytes(self) -> bool:
        """Tell whether it asks for the bytes of tokens."""
        return self.per == "byte" or any(gate.per == "byte" or gate.unit == "bytes" for gate in self.gates())


@dataclass(frozen=True)
class Gate:
    """One gate of a policy; the attributes are those of `Policy`."""

    score: tuple[Term, ...]
    per: Per
    direction: Direction
    keep: float | None
    unit: Unit
    threshold: float | None
    soft: float | None
    scope: Scope
    sequence_tokens: int | None

    @property
    def pooled(self) -> bool:
        """Tell whether its edge depends on more than one document."""
        return self.keep is not None and self.scope not in LOCAL


def _name(where: str, found: str) -> None:
    if not SCORES_NAME.fullmatch(found):
        raise ValueError(f"{where} is {found!r}; allowed are names that match {SCORES_NAME.pattern}")


def _share(where: str, found: float) -> None:
    if not 0 < found <= 1:
        raise ValueError(f"{where} is {found!r}; allowed are shares above 0 and up to 1")


def _among(where: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ValueError(f"{where} is {found!r}; allowed are {', '.join(allowed)}")
