"""The smallest compiled parts of the encoder: unchecked loads and stores at an address, and hash tables of pairs of ids.

The loops of `kernels` take addresses, as C would: numba counts references to every array that a function takes out of a tuple
or hands on, and with arrays these loops spent most of their time on that. All numbers are uint64, so nothing is ever converted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gristmill.compiling import compiled

ID_BITS = 21
MOST_IDS = 1 << ID_BITS
"""Ids and ranks are below this, so that a pair of ids and its rank fit into one word of a hash table."""

EMPTY = np.uint64(2**64 - 1)
SHIFT = np.uint64(ID_BITS)
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio (Knuth 6.4)
_ONE, _THREE, _SEVEN = np.uint64(1), np.uint64(3), np.uint64(7)


Primitive = Callable[..., np.uint64]


def _primitive(typing: Any) -> Primitive:  # noqa: ANN401 - numba has no types
    """Return a function of compiled code, given how it is typed and generated."""
    made: Primitive = intrinsic(typing)
    return made


def _load(bits: int, scale: int) -> Primitive:
    """Return a compiled function: the unsigned number of so many bits at address + scale * i, as uint64."""

    def load(_context: Any, address: Any, i: Any) -> Any:  # noqa: ANN401
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            value = builder.load(_pointer(builder, arguments, bits, scale), typ=ir.IntType(bits), align=min(scale, bits // 8))
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return types.uint64(types.uint64, types.uint64), generate

    return _primitive(load)


def _store(bits: int) -> Primitive:
    """Return a compiled function that writes the low bits of a value at address + bits / 8 * i."""

    def store(_context: Any, address: Any, i: Any, value: Any) -> Any:  # noqa: ANN401
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            pointer = _pointer(builder, arguments, bits, bits // 8)
            value = arguments[2] if bits == 64 else builder.trunc(arguments[2], ir.IntType(bits))
            builder.store(value, pointer, align=bits // 8)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.uint64), generate

    return _primitive(store)


def _pointer(builder: Any, arguments: Any, bits: int, scale: int) -> Any:  # noqa: ANN401
    place = builder.add(arguments[0], builder.mul(arguments[1], ir.Constant(ir.IntType(64), scale)))
    return builder.inttoptr(place, ir.IntType(bits).as_pointer())


byte_at = _load(8, 1)
id_at = _load(32, 4)
word_at = _load(64, 8)
bytes_at = _load(64, 1)  # eight bytes that begin anywhere, little-endian
put_id = _store(32)
put_word = _store(64)


@_primitive
def lower_run(_context: Any, address: Any, i: Any) -> Any:  # noqa: ANN401
    """Return how many of the sixteen bytes at address + i are lower-case letters in a row from the first on."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        kind = ir.VectorType(ir.IntType(8), 16)
        pointer = builder.inttoptr(builder.add(*arguments), kind.as_pointer())
        letters = builder.sub(builder.load(pointer, typ=kind, align=1), ir.Constant(kind, [ord("a")] * 16))
        others = builder.icmp_unsigned(">=", letters, ir.Constant(kind, [26] * 16))
        bits = builder.zext(builder.bitcast(others, ir.IntType(16)), ir.IntType(64))
        bits = builder.or_(bits, ir.Constant(ir.IntType(64), 1 << 16))
        return builder.cttz(bits, ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64, types.uint64), generate


@_primitive
def prefetch(_context: Any, address: Any) -> Any:  # noqa: ANN401
    """Ask for the cache line of an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@_primitive
def trailing_ones(_context: Any, bits: Any) -> Any:  # noqa: ANN401
    """Return how many of the lowest bits of a number are one in a row."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.cttz(builder.not_(arguments[0]), ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def merge_table(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the hash table of merges, uint64 [a power of two]: pair of ids << 21 | rank, at most half full."""
    table = np.full(max(16, 1 << (2 * len(ranks)).bit_length()), EMPTY, np.uint64)
    keys = left.astype(np.uint64) << SHIFT | right.astype(np.uint64)
    _fill(table, shift_of(table.size), keys, ranks.astype(np.uint64))
    return table


def pair_bits(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], per_pair: int = 32) -> npt.NDArray[np.uint8]:
    """Return a set of pairs as bits (a Bloom filter of one hash), uint8 [a power of two]."""
    size = max(64, 1 << (per_pair * len(left)).bit_length())
    bits = np.zeros(size // 8, np.uint8)
    places = ((left.astype(np.uint64) << SHIFT | right.astype(np.uint64)) * MIX) >> shift_of(size)
    np.bitwise_or.at(bits, places >> _THREE, np.uint8(1) << (places & _SEVEN).astype(np.uint8))
    return bits


def shift_of(size: int) -> np.uint64:
    """Return by how much a 64-bit hash is shifted to be a place in a table of `size`, a power of two."""
    return np.uint64(65 - size.bit_length())


@compiled
def _fill(table: npt.NDArray[np.uint64], shift: np.uint64, keys: npt.NDArray[np.uint64], ranks: npt.NDArray[np.uint64]) -> None:
    mask = np.uint64(table.size) - _ONE
    for i in range(keys.size):
        slot = (keys[i] * MIX) >> shift
        while table[slot] != EMPTY:
            slot = (slot + _ONE) & mask
        table[slot] = keys[i] << SHIFT | ranks[i]
