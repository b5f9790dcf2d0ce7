"""A function that says that it only borrows arrays neither makes nor returns one: it would be freed too early, or never."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from lerar_dask.kernels.compiled import kernel

KERNELS = Path(kernel.__file__).parents[1]
SCALAR = {
    "abs", "bool", "float", "int", "len", "max", "min", "range", "round", "np.ceil", "np.exp", "np.floor", "np.float32",
    "np.float64", "np.hypot", "np.int32", "np.int64", "np.isfinite", "np.isnan", "np.log", "np.round", "np.sqrt", "np.trunc",
    "np.uint8", "np.uint16", "np.uint32", "np.uint64", "math.exp", "math.floor", "math.sqrt",
}  # fmt: skip
"""Called with numbers, these give numbers."""
VIEWS = (".reshape", ".view", ".ravel")


def compiled() -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Compiled functions by their names, and whether they borrow."""
    for path in sorted(KERNELS.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                if any(mark.startswith(("kernel", "part")) for mark in marks):
                    yield f"{path.stem}.{node.name}", node, any("borrows=True" in mark for mark in marks)


def arrays_in(node: ast.FunctionDef) -> set[str]:
    """Names of which places are taken: arrays, or tuples."""
    return {ast.unparse(found.value) for found in ast.walk(node) if isinstance(found, ast.Subscript)}


def is_view(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).endswith(VIEWS)
    return isinstance(value, ast.Subscript) and any(isinstance(part, ast.Slice) for part in ast.walk(value.slice))


def test_what_borrows_calls_only_what_makes_no_array():
    functions = list(compiled())
    harmless = {node.name for _, node, borrows in functions if borrows} | SCALAR
    harmless |= {node.name for _, node, _ in functions if not any(returned(node))}
    # inlined, these are part of what calls them; they compute with numbers
    harmless |= {
        node.name for _, node, _ in functions if "inline='always'" in "".join(map(ast.unparse, node.decorator_list))
    }
    assert sum(borrows for _, _, borrows in functions) > 100
    wrong = {
        f"{name}: {called}"
        for name, node, borrows in functions
        if borrows
        for called in calls(node)
        if called not in harmless and not called.endswith(VIEWS)
    }
    assert not wrong


def test_what_borrows_returns_no_array():
    wrong = {
        f"{name}: {ast.unparse(value)}"
        for name, node, borrows in compiled()
        if borrows
        for value in returned(node)
        if is_view(value) or ast.unparse(value) in arrays_in(node)
    }
    assert not wrong


def calls(node: ast.FunctionDef) -> set[str]:
    return {ast.unparse(call.func) for body in node.body for call in ast.walk(body) if isinstance(call, ast.Call)}


def returned(node: ast.FunctionDef) -> list[ast.expr]:
    """Values that a function returns, one by one."""
    values = [found.value for found in ast.walk(node) if isinstance(found, ast.Return) and found.value is not None]
    return [part for value in values for part in (value.elts if isinstance(value, ast.Tuple) else [value])]
