"""The smallest compiled parts of cutting and encoding: unchecked loads and stores at an address, and a few instructions.

The loops of `encoding/kernels.py` take addresses, as C would: numba counts references to every array that a function takes out
of a tuple or hands on, and with arrays these loops spent most of their time on that. All numbers are uint64, so nothing is ever
converted.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from gristmill.compiling import Primitive, primitive

Compiling: TypeAlias = Any
"""What numba and llvmlite hand to code that generates code, values, types and builders: both are without types."""


def address_of(array: npt.NDArray[np.generic]) -> np.uint64:
    """Return where the bytes of an array begin; the caller keeps the array for as long as a loop is at it."""
    assert array.flags.c_contiguous
    return np.uint64(array.ctypes.data)


def _load(bits: int, scale: int) -> Primitive:
    """Return a compiled function: the unsigned number of so many bits at address + scale * i, as uint64."""

    def load(_context: Compiling, address: Compiling, i: Compiling) -> Compiling:
        def generate(_context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
            value = builder.load(_pointer(builder, arguments, bits, scale), typ=ir.IntType(bits), align=min(scale, bits // 8))
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(types.uint64, types.uint64), generate

    return primitive(load)


def _store(bits: int) -> Primitive:
    """Return a compiled function that writes the low bits of a value at address + bits / 8 * i."""

    def store(_context: Compiling, address: Compiling, i: Compiling, value: Compiling) -> Compiling:
        def generate(context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
            pointer = _pointer(builder, arguments, bits, bits // 8)
            value = arguments[2] if bits == 64 else builder.trunc(arguments[2], ir.IntType(bits))
            builder.store(value, pointer, align=bits // 8)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.uint64), generate

    return primitive(store)


def _pointer(builder: Compiling, arguments: Compiling, bits: int, scale: int) -> Compiling:
    place = builder.add(arguments[0], builder.mul(arguments[1], ir.Constant(ir.IntType(64), scale)))
    return builder.inttoptr(place, ir.IntType(bits).as_pointer())


byte_at = _load(8, 1)
id_at = _load(32, 4)
word_at = _load(64, 8)
bytes_at = _load(64, 1)  # eight bytes that begin anywhere, little-endian
put_byte = _store(8)
put_id = _store(32)
put_word = _store(64)


@primitive
def lower_run(_context: Compiling, address: Compiling, i: Compiling) -> Compiling:
    """Return how many of the sixteen bytes at address + i are lower-case letters in a row from the first on."""

    def generate(_context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
        kind = ir.VectorType(ir.IntType(8), 16)
        pointer = builder.inttoptr(builder.add(*arguments), kind.as_pointer())
        letters = builder.sub(builder.load(pointer, typ=kind, align=1), ir.Constant(kind, [ord("a")] * 16))
        others = builder.icmp_unsigned(">=", letters, ir.Constant(kind, [26] * 16))
        bits = builder.zext(builder.bitcast(others, ir.IntType(16)), ir.IntType(64))
        bits = builder.or_(bits, ir.Constant(ir.IntType(64), 1 << 16))
        return builder.cttz(bits, ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64, types.uint64), generate


@primitive
def prefetch(_context: Compiling, address: Compiling) -> Compiling:
    """Ask for the cache line of an address."""

    def generate(context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@primitive
def trailing_ones(_context: Compiling, bits: Compiling) -> Compiling:
    """Return how many of the lowest bits of a number are one in a row."""

    def generate(_context: Compiling, builder: Compiling, _signature: Compiling, arguments: Compiling) -> Compiling:
        return builder.cttz(builder.not_(arguments[0]), ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate
