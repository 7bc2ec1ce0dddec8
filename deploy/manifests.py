"""Command that writes the files of deploy/kubernetes, or names the outdated ones.

scripts/manifests [--check]
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from deploy import kserve, objects, overlays
from deploy.values import NAME, Templates, base_values, chart_values, values_file
from housing.core.environment import PROJECT
from housing.core.files import atomic_write

MANIFEST_DIR = PROJECT / "deploy" / "kubernetes"
HEADER = "# Written by ./scripts/manifests. Do not edit: change deploy/*.py, compose.yml, conf/ or prometheus/.\n"
CHART = {
    "apiVersion": "v2",
    "name": NAME,
    "description": "API for tabular regression with puller and joiner, alerts, and scheduled retraining",
    "type": "application",
    "version": "0.2.0",
    "kubeVersion": ">=1.29.0-0",
}


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of as aliases, and long text in blocks."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def to_yaml(content: Any) -> str:
    """Return content as YAML, with keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1_000_000, allow_unicode=True)


def render() -> dict[Path, str]:
    """Return the text of every file by its path."""
    values = base_values()
    base = objects.base_objects(values)
    single, production = overlays.single_objects(values), overlays.production_objects(values)
    kserve_objects = kserve.kserve_objects(values)
    folders: dict[str, dict[str, Any]] = {
        "base": {"kustomization": overlays.kustomization(_files(base)), **base},
        "overlays/single": {
            "kustomization": _overlay(single, overlays.single_patches(values)),
            **single,
        },
        "overlays/production": {
            "kustomization": _overlay(production, overlays.production_patches(values)),
            **production,
        },
        "kserve": {"kustomization": overlays.kustomization(_files(kserve_objects)), **kserve_objects},
        ".": {"prometheus-adapter": objects.adapter_rules()},
        "chart": {"Chart": CHART, "values": values_file()},
    }
    texts = {f"{folder}/{name}.yaml": to_yaml(content) for folder, files in folders.items() for name, content in files.items()}
    templates = Templates()
    for name, content in objects.base_objects(chart_values(templates)).items():
        texts[f"chart/templates/{name}.yaml"] = templates.fill(to_yaml(content))
    return {MANIFEST_DIR / path: HEADER + text for path, text in texts.items()}


def _files(names: dict[str, Any]) -> list[str]:
    return [f"{name}.yaml" for name in names]


def _overlay(own: dict[str, Any], patches: list[dict[str, Any]]) -> dict[str, Any]:
    return overlays.kustomization(["../../base", *_files(own)], patches, NAME)


def outdated() -> list[Path]:
    """Return the files that differ from what would be written, and those that nothing writes."""
    rendered = render()
    current = {path: path.read_text(encoding="utf-8") for path in MANIFEST_DIR.rglob("*.yaml")}
    return sorted(path for path in {*rendered, *current} if rendered.get(path) != current.get(path))


def write_manifests() -> None:
    """Write all files, and remove those that nothing writes."""
    rendered = render()
    for path in outdated():
        if path not in rendered:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(rendered[path], encoding="utf-8")


def main() -> None:
    """Write the manifests, or with --check exit with an error if a file is outdated."""
    match sys.argv[1:]:
        case []:
            write_manifests()
        case ["--check"]:
            names = ", ".join(str(path.relative_to(PROJECT)) for path in outdated())
            if names:
                sys.exit(f"error: outdated: {names}. Write them again: scripts/manifests")
        case other:
            sys.exit(f"error: {' '.join(other)} is unknown. Use: scripts/manifests [--check]")


if __name__ == "__main__":
    main()
