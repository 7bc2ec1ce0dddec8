"""Declaration of a described file: the commented YAML of its table."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from housing.core.config import to_flow_yaml
from housing.data.read_options import PLAIN, ReadOptions
from housing.description.decisions import Decision, Decisions

WIDTH = 128
LIST_KEYS = ("na_values", "true_values", "false_values")


def to_declaration(
    name: str, source: str, path: str, decisions: Decisions, evidence: Mapping[str, str], findings: Sequence[str]
) -> str:
    """Return the YAML of a table, each line with its evidence as a comment.

    Parameters
    ----------
    source
        What was read, for the first line.
    path
        The value of the key `path`.
    evidence
        For read options, by name.
    findings
        Sentences about what misleads. They stand at the top.
    """
    lines = [*_comment(f"Written by housing.describe from {source}. Each guess stands beside its evidence.", "")]
    for finding in findings:
        lines += _comment(f"! {finding}", "")
    lines += [f"name: {to_flow_yaml(name)}", f"path: {path}"]
    read = list(_read_lines(decisions, evidence))
    lines += ["read:", *read] if read else []
    lines += ["columns:"]
    for column in decisions.columns:
        lines += _column_lines(column)
    return "\n".join(lines) + "\n"


def _read_lines(decisions: Decisions, evidence: Mapping[str, str]) -> Iterator[str]:
    for option in fields(ReadOptions):
        value = getattr(decisions.options, option.name)
        if value == getattr(PLAIN, option.name) or option.name == "names":
            continue
        if option.name in LIST_KEYS:
            value = list(value)
        if option.name == "column_na_values":
            value = {name: list(cells) for name, cells in value}
        yield from _entry(f"  {option.name}: {to_flow_yaml(value)}", _read_evidence(option.name, decisions, evidence), "  ")


def _read_evidence(name: str, decisions: Decisions, evidence: Mapping[str, str]) -> list[str]:
    if name == "na_values":
        return [", ".join(f"{cell!r} in {count:,} cells" for cell, count in decisions.na_values.items())]
    if name == "column_na_values":
        return ["cells that do not parse in their column"]
    return [evidence[name]] if name in evidence else ["words of the columns of type bool"]


def _column_lines(column: Decision) -> Iterator[str]:
    evidence = column.evidence if column.is_feature or not column.warnings else ()  # a warning repeats it
    notes = [*evidence, *(f"! {warning}" for warning in column.warnings)]
    yield from _entry(f"  {to_flow_yaml(column.name)}: {to_flow_yaml(dict(column.attributes))}", notes, "  ")


def _entry(line: str, notes: Sequence[str], indent: str) -> Iterator[str]:
    """Yield a line with its notes behind it, or above it if there is no room. A long line is wrapped, as YAML allows it."""
    comment = "; ".join(note.removesuffix(".") for note in notes if note)
    if len(f"{line}  # {comment}") <= WIDTH:
        yield f"{line}  # {comment}" if comment else line
        return
    yield from _comment(comment, indent)
    yield from _wrapped(line, indent)


def _wrapped(line: str, indent: str) -> Iterator[str]:
    """Yield a long entry in lines. They break only behind the commas of lists, never within a text."""
    while len(line) > WIDTH:
        end = line.rfind(", ", len(indent) + 4, WIDTH)
        if end < 0 or _is_within_text(line[:end]):
            break
        yield line[: end + 1]
        line = f"{indent}    {line[end + 2 :]}"
    yield line


def _is_within_text(line: str) -> bool:
    return line.count("'") % 2 == 1 or line.count('"') % 2 == 1


def _comment(text: str, indent: str) -> list[str]:
    one_line = " ".join(text.split())
    return textwrap.wrap(one_line, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ", break_on_hyphens=False)


def path_value(path: Path, data_folder: Path) -> str:
    """Return the value of `path`: below the data folder relative to it, otherwise absolute."""
    path = path.resolve()
    if path.is_relative_to(data_folder.resolve()):
        return f"${{paths.data}}/{path.relative_to(data_folder.resolve())}"
    return to_flow_yaml(str(path))
