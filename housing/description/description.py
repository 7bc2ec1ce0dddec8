"""Description of a file: reads it, decides, and writes the YAML of its table and a page."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from housing.core.errors import ConfigError, WriteError
from housing.core.files import atomic_write, require_file
from housing.data.reading import base_name
from housing.data.settings import TableSettings
from housing.description.associations import measure, without_leaks
from housing.description.decisions import decide, find_target
from housing.description.declaration import path_value, to_declaration
from housing.description.findings import count_repeated, find
from housing.description.key_proposals import propose_key
from housing.description.other_rows import find_other_rows
from housing.description.page import Description, render_description
from housing.description.profile import ColumnProfile, FileProfile, profile_file
from housing.description.sniffing import Sniffed, sniff
from housing.description.split_proposals import propose_split

N_EXAMPLES = 3
MAX_OVERRIDE_WIDTH = 40


@dataclass(frozen=True)
class DescriptionSettings:
    """Settings of `conf/describe.yaml`.

    Attributes
    ----------
    target
        The column to predict, or None to list the columns only.
    name
        The name of the table.
    folder
        The folder of config files into which `data/<name>.yaml` is written.
    page
        The page to write.
    overwrite
        Whether an existing YAML may be replaced.
    read
        Read options that are known, by name. The others are guessed.
    """

    file: Path
    target: str | None
    name: str
    folder: Path
    page: Path
    data_folder: Path
    overwrite: bool = False
    read: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, cfg: DictConfig, folder: Path) -> Self:
        """Read the settings of `housing.describe`."""
        file = Path(cfg.file)
        name = str(cfg.name or re.sub(r"[^\w.-]+", "_", base_name(file)).lstrip("_.-") or "table")
        page = Path(cfg.paths.outputs) / f"{name}.description.html" if cfg.page is None else Path(cfg.page)
        target, read = None if cfg.target is None else str(cfg.target), dict(cfg.read)
        return cls(file, target, name, folder, page, Path(cfg.paths.data), cfg.overwrite, read)

    @property
    def declaration(self) -> Path:
        """The YAML to write."""
        return self.folder / "data" / f"{self.name}.yaml"


@dataclass(frozen=True)
class DescribedFile:
    """Facts about a file, and the files that were written about it.

    Attributes
    ----------
    columns
        The names of its columns.
    target
        The column to predict; None if none was chosen, so that nothing is written.
    warnings
        What misleads, one sentence each.
    declaration, page
        The files that were written.
    split
        The proposed split, or None for the default one.
    next_command
        The command that uses the declaration, or chooses a target.
    text
        All this for people.
    """

    file: Path
    rows: int
    columns: list[str]
    target: str | None
    warnings: list[str]
    declaration: Path | None
    page: Path | None
    split: str | None
    next_command: str
    text: str


def describe(settings: DescriptionSettings, next_command: Callable[..., str]) -> DescribedFile:
    """Write the declaration and the page of a file, and return what was found.

    Without a target, only the columns are listed: a target is never guessed.

    Raises
    ------
    HousingError
        If the file does not exist, or the declaration does and may not be overwritten.
    TableError
        If the file is no table.
    """
    require_file(settings.file, "a CSV, Parquet or Excel file")
    if settings.target is not None and settings.declaration.exists() and not settings.overwrite:
        raise ConfigError(f"{settings.declaration} exists. Replace it with overwrite=true, or choose another name: name=NAME")
    sniffed, profile = _read(settings)
    if settings.target is None:
        return _list_columns(profile, sniffed, settings, next_command)
    described = _describe(settings, sniffed, profile, settings.target)
    proposal = described.split
    by = [] if proposal is None or proposal.by is None else [f"split.by={_quoted(proposal.by)}"]
    command = next_command("train", f"data={settings.name}", *([] if proposal is None else [f"split={proposal.split}", *by]))
    declaration = _declare(settings, sniffed, described)
    _write_both(settings, declaration, render_description(described, settings.declaration, command))
    warnings = [*described.findings, *(warning for column in described.decisions.columns for warning in column.warnings)]
    lines = [
        f"{settings.file}: {profile.n_rows:,} rows, {len(profile.columns)} columns",
        *(f"  ! {warning}" for warning in warnings),
        f"declaration  {settings.declaration}",
        f"page         {settings.page}",
        *([] if proposal is None else [f"split        {proposal.split}, since {proposal.reason}"]),
        f"next         {command}",
    ]
    return DescribedFile(
        file=settings.file,
        rows=profile.n_rows,
        columns=[column.name for column in profile.columns],
        target=described.target,
        warnings=warnings,
        declaration=settings.declaration,
        page=settings.page,
        split=None if proposal is None else proposal.split,
        next_command=command,
        text="\n".join(lines),
    )


def _read(settings: DescriptionSettings) -> tuple[Sniffed, FileProfile]:
    """Return how the file is written, and its profile without units and totals."""
    sniffed = sniff(settings.file, settings.read)
    profile = profile_file(settings.file, sniffed.options)
    rows = {} if "skip_rows" in sniffed.evidence else find_other_rows(profile)
    if not rows:
        return sniffed, profile
    sniffed = replace(
        sniffed,
        options=replace(sniffed.options, skip_rows=tuple(rows)),
        evidence={**sniffed.evidence, "skip_rows": "; ".join(rows.values())},
        warnings=(*sniffed.warnings, *rows.values()),
    )
    return sniffed, profile_file(settings.file, sniffed.options)


def _describe(settings: DescriptionSettings, sniffed: Sniffed, profile: FileProfile, target: str) -> Description:
    target = find_target(profile, target)
    decisions, split = propose_split(profile, decide(profile, sniffed.options, target))
    decisions, suspicions = without_leaks(profile, decisions, target)
    if not any(column.is_feature for column in decisions.columns):
        reasons = " ".join(warning for column in decisions.columns for warning in column.warnings)
        raise ConfigError(f"{settings.file} has no column that can be a feature. {reasons}")
    n_repeated = count_repeated(settings.file, decisions)
    decisions = propose_key(profile, decisions, n_repeated)
    findings = [*sniffed.warnings, *find(profile, decisions, target, n_repeated), *suspicions]
    return Description(settings.file, target, profile, decisions, measure(profile, decisions, target), findings, split)


def _declare(settings: DescriptionSettings, sniffed: Sniffed, described: Description) -> str:
    """Return the YAML of the table, which is known to be valid."""
    source = f"{settings.file.name} ({described.profile.n_rows:,} rows, {settings.file.stat().st_size:,} bytes)"
    path = path_value(settings.file, settings.data_folder)
    text = to_declaration(settings.name, source, path, described.decisions, sniffed.evidence, described.findings)
    declared: Any = OmegaConf.create({"paths": {"data": str(settings.data_folder)}, "data": OmegaConf.create(text)})
    TableSettings.from_config(declared.data)  # raises if the declaration is invalid
    return text


def _write_both(settings: DescriptionSettings, declaration: str, page: str) -> None:
    """Write the declaration and the page, or neither: a declaration alone would stop the next attempt."""
    if settings.page.is_dir():
        raise WriteError(f"Could not write {settings.page}: it is a folder. Set page= to the path of a file.")
    with atomic_write(settings.page) as page_file, atomic_write(settings.declaration) as declaration_file:
        page_file.write_text(page, encoding="utf-8")
        declaration_file.write_text(declaration, encoding="utf-8")


def _list_columns(
    profile: FileProfile, sniffed: Sniffed, settings: DescriptionSettings, next_command: Callable[..., str]
) -> DescribedFile:
    """Return the columns with their types, and the command that names one of them as the target."""
    choices = [(shlex.quote(f"target={_quoted(column.name)}"), _summary(column)) for column in profile.columns]
    width = min(max(len(override) for override, _ in choices), MAX_OVERRIDE_WIDTH)
    command = next_command("describe", f"file={_quoted(str(settings.file))}")
    options = ", ".join(f"{key} {getattr(sniffed.options, key)!r}" for key in sniffed.evidence)
    lines = [
        f"{settings.file}: {profile.n_rows:,} rows, {len(profile.columns)} columns{f', {options}' if options else ''}",
        *(f"  ! {warning}" for warning in sniffed.warnings),
        *(f"  {override:{width}}  {summary}" for override, summary in choices),
        "Choose the column to predict, a number, and add its target= to the command:",
        f"  {command} target=...",
    ]
    return DescribedFile(
        file=settings.file,
        rows=profile.n_rows,
        columns=[column.name for column in profile.columns],
        target=None,
        warnings=list(sniffed.warnings),
        declaration=None,
        page=None,
        split=None,
        next_command=f"{command} target=...",
        text="\n".join(lines),
    )


def _summary(column: ColumnProfile) -> str:
    """Return what the cells of a column are, in a few words."""
    missing = f", {column.n_rows - column.n_present:,} missing" if column.n_present < column.n_rows else ""
    if column.n_present and column.n_numbers > column.n_present / 2:
        return f"number, {column.numbers.lowest:.6g} to {column.numbers.highest:.6g}{missing}"
    examples = ", ".join(repr(cell[:20]) for cell in list(dict.fromkeys(cell for cell in column.sample if cell))[:N_EXAMPLES])
    return f"text, such as {examples}{missing}" if examples else "empty"


def _quoted(text: str) -> str:
    """Return a text as a value of an override, in quotes if Hydra would read it as something else."""
    if re.fullmatch(r"[A-Za-z_/][\w./-]*", text) and text.lower() not in ("true", "false", "null", "nan", "inf"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
