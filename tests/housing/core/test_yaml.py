"""Stored configs: every text is read as it was written, also if YAML could read it as another type."""

import pytest
import yaml
from omegaconf import OmegaConf

from housing.core.config import to_yaml
from housing.core.errors import ConfigError
from housing.schema.table_schema import Schema
from housing.tracking.stored_config import parse_stored_config

# texts that YAML 1.1, YAML 1.2 or OmegaConf read as another type if they have no quotes
# fmt: off
LEVELS = (
    "6E01", "1e3", "no", "yes", "on", "off", "y", "n", "true", "null", "~", "",
    "12:30", "007", "0o7", "0x1F", "1_000", "+1", ".5", ".inf", ".nan", "-", "- a",
    "2020-01-01", "2020-01-01 10:00:00", "1,5", "a: b", "#a", "a #b", "'", '"', " a ", "%a", "@a", "!a",
    "&a", "*a", "{a}", "[a]", "=", "<<", "a\nb", "é", "None", "NaN", "inf", "1__0",
    "٣",
)
# fmt: on


def test_text_survives_a_stored_config() -> None:
    content = {"levels": list(LEVELS), **{level: {"x": level} for level in LEVELS}, "numbers": [1, 1e20, 1e-9, 2**60, True, None]}
    text = to_yaml(content)
    assert OmegaConf.to_container(parse_stored_config(text, "run", ())) == content
    assert OmegaConf.to_container(OmegaConf.create(text)) == content  # OmegaConf's own reader, which Hydra uses
    assert yaml.safe_load(text) == content


@pytest.mark.parametrize("level", ["6E01", "no", "on", "12:30", "007", "1_000", "0x1F", "null", "~"])
def test_a_level_or_column_name_that_yaml_misreads_is_an_error_that_suggests_quotes(level: str) -> None:
    columns = f"a: {{type: category, categories: [x, {level}]}}"
    with pytest.raises(ConfigError, match="Column a: categories must be strings, but YAML reads one of them as .*quotes"):
        declare(columns)
    assert declare(f"a: {{type: category, categories: [x, '{level}']}}").features[0].categories == ("x", level)
    if level in ("null", "~"):
        return  # OmegaConf rejects such a key itself
    with pytest.raises(ConfigError, match="YAML reads the name of a column as .*quotes"):
        declare(f"{level}: {{type: float}}")
    assert declare(f"'{level}': {{type: float}}").features[0].name == level


def declare(columns: str) -> Schema:
    """Return the schema of a table with these columns and a target, parsed as in Hydra."""
    cfg = OmegaConf.create(f"name: t\ncolumns:\n  {columns}\n  z: {{type: float, role: target}}\n")
    return Schema.from_dict(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
