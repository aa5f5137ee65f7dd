"""The section `run` of a config: where and how wide a build runs, never what comes out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pipeline.planning.plan import SLICES
from pipeline.resources import Resources

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how wide a build runs; never changes its output.

    `on`: this process and its children, or Ray. `workers`: at most so many units at once; null takes what there is.
    `batch_rows`: documents a table. `memory_per_worker`: bytes, or text such as 4GB or 512MiB. `address`: of a Ray
    cluster; null joins the one of the environment or starts one here. `partitions`: of a barrier; null takes the
    pipeline's own number. `retries`: of a unit whose store failed. `heartbeat`: seconds between two lines
    that say how far the units are; null: none. `stalled_after`: seconds without progress after which a unit is reported; null:
    never. `replace_stalled`: its worker is then replaced. `pools`: what processes of stages that have their own get, by the name
    of the stage.
    """

    on: Literal["local", "ray"] = "local"
    workers: int | None = None
    batch_rows: int = 256
    memory_per_worker: str | int = "4GB"
    address: str | None = None
    partitions: int | None = None
    retries: int = 4
    heartbeat: float | None = 60.0
    stalled_after: float | None = 600.0
    replace_stalled: bool = False
    pools: dict[str, Resources] = field(default_factory=dict)

    LEAST: ClassVar[Mapping[str, int]] = {"workers": 1, "batch_rows": 1, "partitions": 1, "retries": 0}

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in self.LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, found {value}")
        if self.partitions is not None and (self.partitions > SLICES or self.partitions.bit_count() != 1):
            raise ValueError(f"partitions must be a power of two from 1 to {SLICES}, found {self.partitions}")
        for name in ("heartbeat", "stalled_after"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be seconds above 0, or null, found {seconds}")
        if self.replace_stalled and self.stalled_after is None:
            raise ValueError("replace_stalled needs stalled_after, the seconds after which a worker is replaced; found null")
        if self.memory_bytes < 1:
            raise ValueError(f"memory_per_worker must be above 0, found {self.memory_per_worker}")

    @property
    def memory_bytes(self) -> int:
        """Return `memory_per_worker` in bytes."""
        match = _MEMORY.fullmatch(str(self.memory_per_worker).strip())
        if match is None:
            raise ValueError(f"memory_per_worker must be bytes or text such as 4GB or 512MiB, found {self.memory_per_worker!r}")
        return int(float(match[1]) * _UNITS[match[2].upper()])
