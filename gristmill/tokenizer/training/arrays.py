"""The arrays of the trainer by what is in them; the docstrings that use these names say their shapes. Reads and writes nothing.

Compiled loops are checked as Python: numba has its own idea of what an element is, mypy takes one for anything.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int32s: TypeAlias = npt.NDArray[np.int32]
Int64s: TypeAlias = npt.NDArray[np.int64]
UInt8s: TypeAlias = npt.NDArray[np.uint8]
UInt32s: TypeAlias = npt.NDArray[np.uint32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Limits: TypeAlias = tuple[Int64s, Int64s, UInt8s, Int64s]
"""Rules as loops take them: `Rules.limits()`, `Rules.leading()`, and the two of `Rules.names()`."""
