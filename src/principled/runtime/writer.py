"""What a kernel is written with: loops, vectors, arguments, in LLVM's language through llvmlite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Writer:
    """A function that is being written.

    The arguments of a kernel are read from its second parameter where they are named.
    """

    def __init__(self, module: Any, name: str, parameters: int, arguments: tuple[str, ...] = ()) -> None:
        from llvmlite import ir

        self.ir = ir
        self.long, self.int, self.float, self.pointer = ir.IntType(64), ir.IntType(32), ir.FloatType(), ir.PointerType()
        kind = ir.FunctionType(ir.VoidType(), [self.pointer] * parameters)
        self.function = ir.Function(module, kind, name)
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = {
            key: self.load(self.function.args[1], self.long, index) for index, key in enumerate(arguments)
        }

    def number(self, value: int) -> Any:
        """A constant of 64 bits."""
        return self.ir.Constant(self.long, value)

    def vector(self, lanes: int) -> Any:
        """The type of so many floats; of one, a float."""
        return self.float if lanes == 1 else self.ir.VectorType(self.float, lanes)

    def constant(self, value: float, lanes: int) -> Any:
        """The same float in every lane."""
        return self.ir.Constant(self.vector(lanes), value if lanes == 1 else [value] * lanes)

    def at(self, base: Any, index: Any, kind: Any = None) -> Any:
        """The address of ``base[index]``, counted in floats or in ``kind``."""
        index = self.number(index) if isinstance(index, int) else index
        return self.b.gep(base, [index], source_etype=kind or self.float)

    def load(self, base: Any, kind: Any, index: Any = 0, align: int = 4) -> Any:
        """``base[index]``, counted in ``kind``."""
        value = self.b.load(self.at(base, index, kind), typ=kind)
        value.align = 8 if kind == self.long else align
        return value

    def numbers(self, base: Any, lanes: int) -> Any:
        """A vector at an address of a number."""
        value = self.b.load(base, typ=self.vector(lanes))
        value.align = 4
        return value

    def gathered(self, base: Any, places: Sequence[Any]) -> Any:
        """A vector of the numbers at these places: one load each, faster than the gathers of today's processors."""
        value = self.ir.Constant(self.vector(len(places)), self.ir.Undefined)
        for lane, place in enumerate(places):
            value = self.b.insert_element(value, self.load(base, self.float, place), self.ir.Constant(self.int, lane))
        return value

    def store(self, value: Any, base: Any) -> None:
        """Write a float, or a vector of them."""
        self.b.store(value, base).align = 4

    def address(self, key: str) -> Any:
        """The argument of that name, which is an address."""
        return self.b.inttoptr(self.arguments[key], self.pointer)

    def splat(self, value: Any, lanes: int) -> Any:
        """A vector of the same float in every lane."""
        if lanes == 1:
            return value
        undefined = self.ir.Constant(self.vector(lanes), self.ir.Undefined)
        first = self.b.insert_element(undefined, value, self.ir.Constant(self.int, 0))
        return self.b.shuffle_vector(
            first, undefined, self.ir.Constant(self.ir.VectorType(self.int, lanes), [0] * lanes)
        )

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, in one instruction where there is one."""
        kind = a.type
        label = "f32" if kind == self.float else f"v{kind.count}f32"
        declared = self.function.module.globals.get(f"llvm.fmuladd.{label}")
        if declared is None:
            declared = self.ir.Function(
                self.function.module, self.ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{label}"
            )
        return self.b.call(declared, [a, b, c])

    @contextmanager
    def counted(self, begin: Any, end: Any, *carried: Any, step: int = 1) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """A loop ``for index in range(begin, end, step)``: yields the index, the carried values, and a list.

        What the body leaves in that list is carried to the next turn; after the loop it holds the last values.
        """
        before = self.b.block
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(self.long)
        index.add_incoming(begin, before)
        values = [self.b.phi(value.type) for value in carried]
        for phi, value in zip(values, carried, strict=True):
            phi.add_incoming(value, before)
        self.b.cbranch(self.b.icmp_signed("<", index, end), body, after)
        self.b.position_at_end(body)
        results: list[Any] = []
        yield index, values, results
        index.add_incoming(self.b.add(index, self.number(step)), self.b.block)
        for phi, value in zip(values, results, strict=True):
            phi.add_incoming(value, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)
        results[:] = values

    def activated(self, value: Any, activation: str, lanes: int) -> Any:
        """ReLU and its like; a NaN stays one."""
        if activation == "relu":
            return self._below(value, 0.0, lanes)
        if activation == "relu6":
            return self._above(self._below(value, 0.0, lanes), 6.0, lanes)
        if activation == "hardswish":
            moved = self.b.fadd(value, self.constant(3.0, lanes))
            gate = self._above(self._below(moved, 0.0, lanes), 6.0, lanes)
            return self.b.fmul(self.b.fmul(value, gate), self.constant(1 / 6, lanes))
        return value

    def _below(self, value: Any, limit: float, lanes: int) -> Any:
        least = self.constant(limit, lanes)
        return self.b.select(self.b.fcmp_ordered("<", value, least), least, value)

    def _above(self, value: Any, limit: float, lanes: int) -> Any:
        most = self.constant(limit, lanes)
        return self.b.select(self.b.fcmp_ordered(">", value, most), most, value)

    def larger(self, value: Any, largest: Any) -> Any:
        """The larger of two numbers; a NaN counts as larger than any."""
        wins = self.b.or_(self.b.fcmp_ordered(">", value, largest), self.b.fcmp_unordered("uno", value, value))
        return self.b.select(wins, value, largest)
