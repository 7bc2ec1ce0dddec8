"""The run key: a change in any code that decides a run's result changes it, and nothing else does."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.runs import run_key
from housing.tracking import tags
from tests.support.tables import train

PACKAGE = PROJECT / "housing"
# errors, locks, HTTP, commands and downloads do not change a result
UNHASHED = ("housing.core.", "housing.command_line.", "housing.data.")


def test_a_change_in_any_file_that_decides_a_result_changes_the_hash(tmp_path: Path) -> None:
    copy = tmp_path / "housing"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    before = run_key.code_hash(copy)
    packages = ("schema", "features", "bundle", "scoring", "fitting", "training")
    files = [path for name in packages for path in (copy / name).rglob("*") if path.suffix in (".py", ".c")]
    files += [copy / name for name in ("core/config.py", "data/table.py", "data/split.py", "runs/run.py")]
    assert len(files) > 30
    for path in files:
        source = path.read_bytes()
        path.write_bytes(source + b"\n")
        assert run_key.code_hash(copy) != before, path
        path.write_bytes(source)
    assert run_key.code_hash(copy) == before


def test_a_new_or_renamed_file_changes_the_hash_but_other_packages_do_not(tmp_path: Path) -> None:
    copy = tmp_path / "housing"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    before = run_key.code_hash(copy)
    (copy / "reports" / "page.py").write_text("")
    assert run_key.code_hash(copy) == before
    (copy / "fitting" / "estimators.py").rename(copy / "fitting" / "models.py")
    renamed = run_key.code_hash(copy)
    (copy / "features" / "new.py").write_text("")
    assert len({before, renamed, run_key.code_hash(copy)}) == 3


def test_every_module_that_fits_or_scores_is_hashed() -> None:
    program = "import sys, housing.training.build; print(*(name for name in sys.modules if name.startswith('housing.')))"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    hashed = {".".join(("housing", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in run_key.code_files(PACKAGE)}
    packages = {name.removesuffix(".__init__") for name in hashed if name.endswith(".__init__")}
    missing = [name for name in modules if name not in hashed | packages]
    assert [name for name in missing if not f"{name}.".startswith(UNHASHED)] == []


def test_a_run_with_tags_of_another_format_is_not_reused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ("model=decision_tree", "figures=false")
    first = train(home, *tree)
    assert train(home, *tree).run_id == first.run_id
    monkeypatch.setattr(tags, "FORMAT", "5")
    assert not train(home, *tree).reused
