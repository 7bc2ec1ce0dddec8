"""Run key and provenance: a hash of everything that decides a run's result, and the tags that record it."""

import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from housing.core.environment import COMMIT_TAG, CONFIG_FOLDER, PACKAGE, commit, libraries, optional_libraries, own_project
from housing.core.files import sha256
from housing.core.moved_modules import present_name
from housing.core.own_project import ProjectFile
from housing.data.split import Split
from housing.data.table import Table
from housing.streaming.settings import MEMORY
from housing.tracking import tags
from housing.training.build import N_SAMPLE_ROWS

# Config keys that do not change the model: paths, tracking, threads, and what is stored or shown.
EXCLUDED_FROM_KEY = (
    "paths",
    "mlflow",
    "experiment_name",
    "n_threads",
    "figures",
    "log_model",
    "export",
    "force_rerun",
    "fail_fast",
    "sweep",
    "trial",
    "tags",
)

# Packages and modules of housing whose code decides a run's result. A commit of the README must not invalidate finished runs.
CODE_PATHS = (
    "schema",
    "features",
    "streaming",
    "bundle",
    "estimators",
    "cluster/fit_workers.py",
    "scoring",
    "fitting",
    "training",
    "explanation",  # contributions in the bundle
    "core/config.py",
    "data/split.py",
    "data/table.py",
    "runs/run.py",
)
CONNECTION_KEYS = ("address", "memory_gb", "timeout_seconds", "cluster")  # of the engine `dask`: where its workers are
THREAD_KEYS = ("n_jobs", "thread_count")
SOURCE_SUFFIXES = (".py", ".c")


def run_key(resolved: Mapping[str, Any], table: Table, parts: Split) -> str:
    """Return the hash of everything that decides a run's result: config, data, split, code, libraries and tag format."""
    config = {name: _key_part(value) for name, value in resolved.items() if name not in EXCLUDED_FROM_KEY}
    if config.get("engine", {}).get("name") == MEMORY:
        del config["engine"]  # runs of a config without engines have the same key
    elif "engine" in config:
        config["engine"] = {name: value for name, value in config["engine"].items() if name not in CONNECTION_KEYS}
    if config.get("n_sample_rows") == N_SAMPLE_ROWS:
        del config["n_sample_rows"]  # runs of a config without this option have the same key
    config["data"] = {name: value for name, value in config["data"].items() if name not in ("path", "slice_columns", "card")}
    key_parts = {
        "config": config,
        "data": table.fingerprint,
        "split": parts.fingerprint(),
        "code": _code_hash(),
        "libraries": libraries() | optional_libraries(str(config["model"])),
        "teacher_files": _teacher_files(config["model"].get("teacher")),
        "tag_format": tags.FORMAT,
    }
    if own_modules := _own_modules(config):
        key_parts["own_modules"] = own_modules
    return hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()


def _own_modules(config: Mapping[str, Any]) -> str | None:
    """Return the hash of the modules of the project of one's own if the config names one of them, or else None."""
    project = own_project()
    if project is None:
        return None
    packages = [path.parent for path in sorted(project.glob("*/__init__.py"))]
    files = [*sorted(project.glob("*.py")), *(file for package in packages for file in sorted(package.rglob("*.py")))]
    names = {path.stem for path in files if path.parent == project} | {package.name for package in packages}
    own_blocks = ProjectFile.read().feature_blocks
    mappings = list(_mappings(config))
    used_modules = {str(mapping.get("_target_")).partition(".")[0] for mapping in mappings} & names
    used_blocks = {name for mapping in mappings for name in _block_names(mapping.get("blocks"))} & own_blocks.keys()
    return _hash(files, project) if used_modules or used_blocks else None


def _mappings(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each mapping of a config, however deep."""
    if isinstance(node, Mapping):
        yield node
    for item in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _mappings(item)


def _block_names(blocks: Any) -> Iterator[str]:
    """Yield the name of each block of features in the value of a key `blocks`."""
    for label, block in blocks.items() if isinstance(blocks, Mapping) else ():
        if isinstance(block, Mapping):
            yield block.get("block", label)


def _teacher_files(node: Any) -> dict[str, str]:
    """Return the hash of each file that an argument of a teacher names, by its path."""
    items = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    files = {item: sha256(Path(item)) for item in items if isinstance(item, str) and _is_file(item)}
    return files | {path: digest for item in items for path, digest in _teacher_files(item).items()}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


def retraining_key(fingerprint: str, table_config: Mapping[str, Any], sweep: Sequence[str]) -> str:
    """Return the hash of everything that decides the result of a sweep over a table.

    The path of the table is left out. All files in conf/ are hashed, so an unrelated change there starts a new sweep,
    which then reuses its runs.
    """
    parts: dict[str, Any] = {"data": fingerprint, "sweep": list(sweep), "code": _code_hash(), "libraries": libraries()}
    parts["table"] = {name: value for name, value in table_config.items() if name != "path"}
    parts["config"] = _hash(sorted(CONFIG_FOLDER.rglob("*.yaml")), CONFIG_FOLDER.parent)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _key_part(node: Any) -> Any:
    """Return a config node without the estimators' numbers of threads, and with the present names of what moved."""
    if isinstance(node, list):
        return [_key_part(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    part = {name: _key_part(value) for name, value in node.items() if name not in THREAD_KEYS}
    if isinstance(target := part.get("_target_"), str):
        part["_target_"] = present_name(target)
    return part


def provenance() -> dict[str, tuple[str, str]]:
    """Return what decides a result beside config and data: for each name, a run's tag and the tag's current value."""
    versions = {name: (f"housing.{name}", version) for name, version in libraries().items()}
    return {
        "commit": (COMMIT_TAG, commit()[0]),
        "code": (tags.CODE, _code_hash()),
        "python": ("housing.python", platform.python_version()),
        **versions,
    }


def code_hash(package: Path) -> str:
    """Return the hash of the source files at CODE_PATHS below the folder of the package `housing`."""
    return _hash(code_files(package), package)


def code_files(package: Path) -> list[Path]:
    """Return the source files at CODE_PATHS below the folder of the package `housing`, in a fixed order."""
    files: list[Path] = []
    for path in (package / name for name in CODE_PATHS):
        members = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [member for member in members if member.suffix in SOURCE_SUFFIXES]
    return files


@functools.lru_cache
def _code_hash() -> str:
    return code_hash(PACKAGE)


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
