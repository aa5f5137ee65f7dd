"""The names of the per-token columns of models and policies.

A model's columns lie in the sidecar of its name, a policy's in that of its own; `gristmill/models/protocols.py` says what the
values of models are, `gristmill/selection/policy.py` what policies make of them.
"""

from __future__ import annotations


def loss_column(model: str) -> str:
    """Return the column of a model's losses: list<float16>, in nats."""
    return f"ref_loss.{model}"


def entropy_column(model: str) -> str:
    """Return the column of a model's entropies: list<float16>, in nats."""
    return f"entropy.{model}"


def exact_column(model: str) -> str:
    """Return the column that says where a token's loss is its model's own, not interpolated: list<bool>."""
    return f"exact.{model}"


def score_column(policy: str) -> str:
    """Return the column of what a policy ranks tokens by: list<float16>."""
    return f"score.{policy}"


def selected_column(policy: str) -> str:
    """Return the column that says which tokens a policy trains on: list<bool>."""
    return f"selected.{policy}"


def weight_column(policy: str) -> str:
    """Return the column of the weights that a soft policy gives tokens in the loss: list<float16>, from 0 to 1."""
    return f"weight.{policy}"
