"""Compiled kernels for wide fragments; importing this module compiles them or loads them.

A state is one array of complex numbers. Gates that follow each other on few bits of its index, the
*hot* ones, are applied together: blocks of amplitudes that these bits run through are copied to a
buffer that fits the processor's cache, real and imaginary parts apart, all gates act there, and the
block is copied back. In the buffer every combination of hot bits holds `LANES` amplitudes, which
differ in other bits of the index, the *lanes*, and are treated as one vector of the processor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from ..cutting import ComplexArray, FloatArray, IntArray

LANE_BITS = 4
LANES = 1 << LANE_BITS
"""Amplitudes of a vector."""

_F = TypeVar("_F", bound=Callable[..., Any])
_log = logging.getLogger(__name__)


def _compiled(signature: str, *, within: bool = False) -> Callable[[_F], _F]:
    """Compile a function, and keep the code for other processes where there is a place for it.

    Functions called `within` others alone need not be callable from Python.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": within}

    def decorate(function: _F) -> _F:
        made: _F
        try:
            made = njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError) as error:  # no directory can be written, or a disk is full
            _log.info("compiled kernels are not kept for the next process: %s", error)
            made = njit(signature, **options)(function)
        return made

    return decorate


# --- vectors of the processor ---------------------------------------------------------------------

_LLVM = ir.VectorType(ir.DoubleType(), LANES)
_FAST = ("contract",)  # a product and a sum may be rounded once


class _Vector(types.Type):
    """`LANES` numbers in registers."""

    def __init__(self) -> None:
        super().__init__(name=f"vector of {LANES} float64")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _LLVM)


_vector = _Vector()
_instruction: Callable[[Any], Any] = intrinsic


def _address(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    place = builder.shl(number, ir.Constant(ir.IntType(64), LANE_BITS))
    return builder.bitcast(builder.gep(data, [place]), _LLVM.as_pointer())


@_instruction
def _load(_: Any, array: Any, number: Any) -> Any:
    """The vector numbered so in an array of numbers."""

    def make(context: Any, builder: Any, signature: Any, own: Any) -> Any:
        value = builder.load(_address(context, builder, signature.args[0], *own))
        value.align = 8
        return value

    return _vector(array, types.int64), make


@_instruction
def _store(_: Any, array: Any, number: Any, value: Any) -> Any:
    """Write a vector into an array."""

    def make(context: Any, builder: Any, signature: Any, own: Any) -> Any:
        builder.store(own[2], _address(context, builder, signature.args[0], *own[:2])).align = 8
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector), make


@_instruction
def _zero(_: Any) -> Any:
    """A vector of zeros."""
    return _vector(), lambda context, builder, signature, own: ir.Constant(_LLVM, None)


@_instruction
def _add_scaled(_: Any, total: Any, factor: Any, value: Any) -> Any:
    """Total + factor · value, the factor a number."""

    def make(context: Any, builder: Any, signature: Any, own: Any) -> Any:
        undefined = ir.Constant(_LLVM, ir.Undefined)
        first = builder.insert_element(undefined, own[1], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        factor = builder.shuffle_vector(first, undefined, everywhere)
        return builder.fadd(own[0], builder.fmul(factor, own[2], flags=_FAST), flags=_FAST)

    return _vector(_vector, types.float64, _vector), make


@_instruction
def _add_product(_: Any, total: Any, left: Any, right: Any) -> Any:
    """Total + left · right, lane by lane."""

    def make(context: Any, builder: Any, signature: Any, own: Any) -> Any:
        return builder.fadd(own[0], builder.fmul(own[1], own[2], flags=_FAST), flags=_FAST)

    return _vector(_vector, _vector, _vector), make


# --- gates ----------------------------------------------------------------------------------------


@_compiled("i8(i8, i8[::1], i8, i8)", within=True)
def _spread(number: int, bits: IntArray, first: int, count: int) -> int:
    """The number with a zero put in at each of some bits, ascending."""
    for place in range(first, first + count):
        low = number & ((1 << bits[place]) - 1)
        number = ((number ^ low) << 1) | low
    return number


@_compiled("i8(i8[:,::1], i8)", within=True)
def _scratch(gates: IntArray, power: int) -> int:
    """Numbers that the widest gate needs at once."""
    width = 0
    for gate in range(len(gates)):
        if gates[gate, 0] > width:
            width = gates[gate, 0]
    return 2 * LANES << power * width


@_compiled("void(c16[::1], i8, i8[::1], i8[::1], f8[::1])", within=True)
def _gather(
    state: ComplexArray, base: int, hot: IntArray, lanes: IntArray, buffer: FloatArray
) -> None:
    imaginary = hot.size * LANES
    for block in range(hot.size):
        for lane in range(LANES):
            value = state[base + hot[block] + lanes[lane]]
            buffer[block * LANES + lane] = value.real
            buffer[imaginary + block * LANES + lane] = value.imag


@_compiled("void(c16[::1], i8, i8[::1], i8[::1], f8[::1])", within=True)
def _scatter(
    state: ComplexArray, base: int, hot: IntArray, lanes: IntArray, buffer: FloatArray
) -> None:
    imaginary = hot.size * LANES
    for block in range(hot.size):
        for lane in range(LANES):
            place = block * LANES + lane
            state[base + hot[block] + lanes[lane]] = complex(
                buffer[place], buffer[imaginary + place]
            )


@_compiled("void(f8[::1], i8, i8[::1], i8[::1], i8[::1], c16[::1], b1, f8[::1])", within=True)
def _apply(
    buffer: FloatArray,
    size: int,
    gate: IntArray,
    bits: IntArray,
    offsets: IntArray,
    matrices: ComplexArray,
    adjoint: bool,
    scratch: FloatArray,
) -> None:
    """Apply a gate, or its inverse, to all vectors of a buffer."""
    width, bit, place, start = gate[0], gate[1], gate[2], gate[3]
    dim = 1 << width
    for group in range(size >> width):
        base = _spread(group, bits, bit, width)
        for j in range(dim):
            _store(scratch, 2 * j, _load(buffer, base + offsets[place + j]))
            _store(scratch, 2 * j + 1, _load(buffer, size + base + offsets[place + j]))
        for i in range(dim):
            real, imaginary = _zero(), _zero()
            for j in range(dim):
                element = matrices[start + (j * dim + i if adjoint else i * dim + j)]
                a, b = element.real, -element.imag if adjoint else element.imag
                if a != 0.0:
                    real = _add_scaled(real, a, _load(scratch, 2 * j))
                    imaginary = _add_scaled(imaginary, a, _load(scratch, 2 * j + 1))
                if b != 0.0:
                    real = _add_scaled(real, -b, _load(scratch, 2 * j + 1))
                    imaginary = _add_scaled(imaginary, b, _load(scratch, 2 * j))
            _store(buffer, base + offsets[place + i], real)
            _store(buffer, size + base + offsets[place + i], imaginary)


@_compiled(
    "void(f8[::1], f8[::1], i8, i8[::1], i8[::1], i8[::1], i8, f8[::1], c16[::1])", within=True
)
def _add_transition(
    left: FloatArray,
    right: FloatArray,
    size: int,
    gate: IntArray,
    bits: IntArray,
    offsets: IntArray,
    parts: int,
    scratch: FloatArray,
    total: ComplexArray,
) -> None:
    """Add the sum of conj(left) right over all other bits, by the values of a gate's in either.

    Of its two parts the imaginary one is left out where one is wanted.
    """
    width, bit, place, start = gate[0], gate[1], gate[2], gate[3]
    dim = 1 << width
    for number in range(2 * dim * dim * LANES):
        scratch[number] = 0.0
    for group in range(size >> width):
        base = _spread(group, bits, bit, width)
        for i in range(dim):
            row = base + offsets[place + i]
            u, v = _load(left, row), _load(left, size + row)
            minus_v = _add_scaled(_zero(), -1.0, v)
            for j in range(dim):
                column = base + offsets[place + j]
                x, y = _load(right, column), _load(right, size + column)
                element = 2 * (i * dim + j)
                real = _add_product(_load(scratch, element), u, x)
                _store(scratch, element, _add_product(real, v, y))
                if parts == 1:
                    continue
                imaginary = _add_product(_load(scratch, element + 1), u, y)
                _store(scratch, element + 1, _add_product(imaginary, minus_v, x))
    for element in range(dim * dim):
        real_part = imaginary_part = 0.0
        for lane in range(LANES):
            real_part += scratch[2 * element * LANES + lane]
            imaginary_part += scratch[(2 * element + 1) * LANES + lane]
        total[start + element] += complex(real_part, imaginary_part)


@_compiled("void(c16[::1], i8[::1], i8[::1], i8[::1], i8[:,::1], i8[::1], i8[::1], c16[::1], b1)")
def apply_pass(
    state: ComplexArray,
    hot: IntArray,
    lanes: IntArray,
    used: IntArray,
    gates: IntArray,
    bits: IntArray,
    offsets: IntArray,
    matrices: ComplexArray,
    adjoint: bool,
) -> None:
    """Apply gates on few bits to a state, in place.

    Args:
        state: All amplitudes.
        hot: Offset of each combination of hot bits.
        lanes: Offset of each lane.
        used: The bits of both, ascending.
        gates: Per gate, its number of bits, and where its bits, offsets and matrix begin.
        bits: Places of gates' bits among the hot ones, ascending for each gate.
        offsets: Offset in the buffer of each combination of a gate's bits.
        matrices: Row by row.
        adjoint: Whether to apply the inverses of all, last gate first.
    """
    buffer, scratch = np.empty(2 * hot.size * LANES), np.empty(_scratch(gates, 1))
    for block in range(state.size >> used.size):
        base = _spread(block, used, 0, used.size)
        _gather(state, base, hot, lanes, buffer)
        for turn in range(len(gates)):
            gate = len(gates) - 1 - turn if adjoint else turn
            _apply(buffer, hot.size, gates[gate], bits, offsets, matrices, adjoint, scratch)
        _scatter(state, base, hot, lanes, buffer)


@_compiled(
    "void(c16[::1], c16[::1], i8[::1], i8[::1], i8[::1], i8[:,::1], i8[::1], i8[::1], "
    "c16[::1], i8[::1], c16[::1])"
)
def pull_back_pass(
    state: ComplexArray,
    slope: ComplexArray,
    hot: IntArray,
    lanes: IntArray,
    used: IntArray,
    gates: IntArray,
    bits: IntArray,
    offsets: IntArray,
    matrices: ComplexArray,
    wanted: IntArray,
    transitions: ComplexArray,
) -> None:
    """Undo the gates of a pass on a state and on the derivative by it, last gate first.

    Where a gate is `wanted`, the sum of conj(slope) state behind it, by the values of its bits in
    either, is added to `transitions`, laid out as `matrices` are; of real gates, for which it is 1
    and not 2, the real part alone. The other arguments are those of `apply_pass`.
    """
    buffer, other = np.empty(2 * hot.size * LANES), np.empty(2 * hot.size * LANES)
    scratch = np.empty(_scratch(gates, 2))
    for block in range(state.size >> used.size):
        base = _spread(block, used, 0, used.size)
        _gather(state, base, hot, lanes, buffer)
        _gather(slope, base, hot, lanes, other)
        for gate in range(len(gates) - 1, -1, -1):
            own = gates[gate]
            if wanted[gate]:
                _add_transition(
                    other, buffer, hot.size, own, bits, offsets, wanted[gate], scratch, transitions
                )
            _apply(buffer, hot.size, own, bits, offsets, matrices, True, scratch)
            _apply(other, hot.size, own, bits, offsets, matrices, True, scratch)
        _scatter(state, base, hot, lanes, buffer)
        _scatter(slope, base, hot, lanes, other)


# --- matrices of fused gates ----------------------------------------------------------------------


@_compiled("void(c16[::1], i8[:,::1], i8[::1], i8[:,::1], c16[::1])")
def fold(
    values: ComplexArray,
    factors: IntArray,
    offsets: IntArray,
    blocks: IntArray,
    matrices: ComplexArray,
) -> None:
    """Multiply the gates of every block out.

    Args:
        values: Matrices of all gates, row by row.
        factors: Per gate, its dimension, where its matrix begins, and where its `offsets` begin,
            which are those of its own index in the block's, and then of the index of all others.
        offsets: See there.
        blocks: Per block, its dimension, its first gate and one past its last, and where its matrix
            begins.
        matrices: Of the blocks, row by row; identities at first.
    """
    scratch = np.empty(64, np.complex128)
    for block in range(len(blocks)):
        dim, start = blocks[block, 0], blocks[block, 3]
        for factor in range(blocks[block, 1], blocks[block, 2]):
            size, begin, place = factors[factor, 0], factors[factor, 1], factors[factor, 2]
            for rest in range(dim // size):
                base = offsets[place + size + rest]
                for column in range(dim):
                    for i in range(size):
                        value = 0j
                        for j in range(size):
                            row = base + offsets[place + j]
                            value += (
                                values[begin + i * size + j] * matrices[start + row * dim + column]
                            )
                        scratch[i] = value
                    for i in range(size):
                        row = base + offsets[place + i]
                        matrices[start + row * dim + column] = scratch[i]


@_compiled("void(c16[::1], i8[:,::1], i8[::1], i8[:,::1], c16[::1], c16[::1])")
def unfold(
    values: ComplexArray,
    factors: IntArray,
    offsets: IntArray,
    blocks: IntArray,
    transitions: ComplexArray,
    slopes: ComplexArray,
) -> None:
    """Sums of conj(derivative) state *around* every gate, from those behind every block.

    The derivative of the result is twice the real part of the sum over a gate's `slopes`, times
    the derivative of its matrix. They are laid out as `values`, 0 at first; `transitions` are
    overwritten. The other arguments are those of `fold`.
    """
    around = np.empty(1 << 12, np.complex128)
    for block in range(len(blocks)):
        dim, start = blocks[block, 0], blocks[block, 3]
        for factor in range(blocks[block, 2] - 1, blocks[block, 1] - 1, -1):
            size, begin, place = factors[factor, 0], factors[factor, 1], factors[factor, 2]
            for element in range(dim * dim):
                around[element] = 0.0
            for rest in range(dim // size):
                base = offsets[place + size + rest]
                for i in range(size):
                    row = base + offsets[place + i]
                    for j in range(size):
                        column = base + offsets[place + j]
                        conjugate = values[begin + i * size + j].conjugate()
                        for k in range(dim):
                            behind = transitions[start + k * dim + row]
                            around[k * dim + column] += behind * conjugate
            for element in range(dim * dim):
                transitions[start + element] = 0.0
            for rest in range(dim // size):
                base = offsets[place + size + rest]
                for i in range(size):
                    row = base + offsets[place + i]
                    for j in range(size):
                        column = base + offsets[place + j]
                        slopes[begin + i * size + j] += around[row * dim + column]
                        element = values[begin + i * size + j]
                        for k in range(dim):
                            own = element * around[row * dim + k]
                            transitions[start + column * dim + k] += own


# --- outcomes -------------------------------------------------------------------------------------
# The outcome of a basis state is the exclusive or of what each of its qubits adds, `parities`. It
# is followed from one run of `LANES` basis states to the next; what they add within a run is `low`.


@_compiled("i8(i8, i8, i8[::1])", within=True)
def _next_outcome(outcome: int, run: int, parities: IntArray) -> int:
    """The outcome of the run after the one numbered so."""
    bit = 0
    while run >> bit & 1:
        outcome ^= parities[LANE_BITS + bit]
        bit += 1
    return outcome if LANE_BITS + bit >= parities.size else outcome ^ parities[LANE_BITS + bit]


@_compiled("void(c16[::1], i8[::1], f8[:,::1])")
def add_chances(state: ComplexArray, parities: IntArray, sums: FloatArray) -> None:
    """Add probabilities by outcome of the run and by lane, shape (outcomes, lanes)."""
    outcome = 0
    for run in range(state.size // LANES):
        for lane in range(LANES):
            value = state[run * LANES + lane]
            sums[outcome, lane] += value.real * value.real + value.imag * value.imag
        outcome = _next_outcome(outcome, run, parities)


@_compiled("void(c16[:,::1], i8[::1], i8[::1], i8[::1], c16[:,:,::1])")
def sort_by_outcome(
    states: ComplexArray, parities: IntArray, low: IntArray, ends: IntArray, parts: ComplexArray
) -> None:
    """Sort the amplitudes of every branch, (branches, 2**n) -> (outcomes, branches, …).

    `ends` are how many each outcome has so far: 0.
    """
    outcome = 0
    for run in range(states.shape[1] // LANES):
        for lane in range(LANES):
            own = outcome ^ low[lane]
            for branch in range(len(states)):
                parts[own, branch, ends[own]] = states[branch, run * LANES + lane]
            ends[own] += 1
        outcome = _next_outcome(outcome, run, parities)


@_compiled("void(c16[:,::1], i8[::1], i8[::1], c16[:,:,::1], c16[:,::1])")
def weigh(
    states: ComplexArray,
    parities: IntArray,
    low: IntArray,
    weights: ComplexArray,
    result: ComplexArray,
) -> None:
    """Combine branches by the weights of the outcome of each amplitude.

    Args:
        states: Shape (branches, 2**n).
        parities: What each qubit adds to an outcome.
        low: What each lane of a run adds.
        weights: Shape (outcomes, branches of the result, branches).
        result: Shape (branches, 2**n); they are added to it.
    """
    outcome = 0
    for run in range(states.shape[1] // LANES):
        first = run * LANES
        for left in range(len(states)):
            for right in range(len(states)):
                for lane in range(LANES):
                    weight = weights[outcome ^ low[lane], left, right]
                    result[left, first + lane] += weight * states[right, first + lane]
        outcome = _next_outcome(outcome, run, parities)
