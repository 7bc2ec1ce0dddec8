"""Size of the code: lines, lengths of functions, methods of classes."""

import ast
import statistics

from housing.core.environment import PROJECT

FOLDERS = ("housing", "server", "hydra_plugins", "tests")
MANY_METHODS = 10


def print_code_size() -> None:
    """Print lines, lengths of functions, and the classes with many public methods."""
    print("| folder | lines | functions | median length | 90th percentile | largest | classes with > 10 public methods |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for folder in FOLDERS:
        texts = [path.read_text(encoding="utf-8") for path in sorted((PROJECT / folder).rglob("*.py"))]
        nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
        lengths = sorted(_length(node) for node in nodes if isinstance(node, ast.FunctionDef))
        large = sum(_public_methods(node) > MANY_METHODS for node in nodes if isinstance(node, ast.ClassDef))
        lines = sum(text.count("\n") for text in texts)
        percentile = lengths[int(0.9 * len(lengths))]
        median = statistics.median(lengths)
        print(f"| {folder} | {lines:,} | {len(lengths):,} | {median:g} | {percentile} | {lengths[-1]} | {large} |")


def _length(function: ast.FunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _public_methods(class_: ast.ClassDef) -> int:
    return sum(isinstance(node, ast.FunctionDef) and not node.name.startswith("_") for node in class_.body)
