"""The smallest compiled parts of fastText's arithmetic: rows of float32 added up in registers.

Rows lie where the model's file is mapped, at any byte, so they are read by their addresses and no alignment is assumed. Each
number of the sum is added in the order of the rows, as fastText does, so sums are equal to the bit.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gristmill.compiling import Primitive, primitive

Compiling: TypeAlias = Any
"""What numba and llvmlite hand to code that generates code, values, types and builders: both are without types."""


def _adding(width: int) -> Primitive:
    """Return a compiled function that adds to `width` numbers at an address those of rows.

    Its arguments, all uint64: the address of the sums; that of the first row's numbers; that of which rows, int32 each; how many
    these are; bytes from a row to the next.
    """

    def add(
        _context: Compiling, sums: Compiling, rows: Compiling, ids: Compiling, count: Compiling, stride: Compiling
    ) -> Compiling:
        def generate(context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
            kind, number, long = ir.VectorType(ir.FloatType(), width), ir.IntType(32), ir.IntType(64)
            sums, rows, ids, count, stride = arguments
            target = builder.inttoptr(sums, kind.as_pointer())
            held = cgutils.alloca_once_value(builder, builder.load(target, typ=kind, align=4))
            with cgutils.for_range(builder, count, intp=long) as loop:
                place = builder.add(ids, builder.mul(loop.index, long(4)))
                row = builder.sext(builder.load(builder.inttoptr(place, number.as_pointer()), typ=number, align=4), long)
                source = builder.inttoptr(builder.add(rows, builder.mul(row, stride)), kind.as_pointer())
                builder.store(builder.fadd(builder.load(held, typ=kind), builder.load(source, typ=kind, align=1)), held)
            builder.store(builder.load(held, typ=kind), target, align=4)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.uint64, types.uint64, types.uint64), generate

    return primitive(add)


add_32, add_16, add_4, add_1 = _adding(32), _adding(16), _adding(4), _adding(1)
