"""Model card: what a model is for, what it was made from, how good it is and where its limits are.

Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019), and the points of Annex IV of Regulation (EU)
2024/1689. A title names the points that it covers. Intended use and limits come from `card` in the table's YAML, all else from
the run. What is not known is said to be unknown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError, HousingError, StoreError
from housing.core.files import atomic_write
from housing.data.settings import CARD_KEYS
from housing.evaluation.results import Evaluation
from housing.plots.html import write_page
from housing.reports.markdown import to_markdown
from housing.reports.page import TEMPLATE, HtmlTable, Page, Section
from housing.reports.run_data import latest_decision
from housing.reports.slice_tables import GROUPS_TEXT, group_tables, slice_table
from housing.runs.past_run import PastRun
from housing.schema.column import Column
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.aliases import require_declared_alias
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

CARDS = "cards"  # folder below outputs
UNKNOWN = "unknown"


@dataclass(frozen=True)
class WrittenCard:
    """The files of a model card.

    Attributes
    ----------
    unknown
        The keys of `card` in the table's YAML that are not declared, so that the card says "unknown".
    """

    html: Path
    markdown: Path
    unknown: list[str]


@dataclass(frozen=True)
class CardData:
    """The content of a card.

    Attributes
    ----------
    subject
        The version or the run, for the title.
    declared
        `card` of the table's YAML.
    decisions
        Runs of the decision log about this run, newest first.
    """

    subject: str
    table: str
    description: str
    declared: Mapping[str, Any]
    past_run: PastRun
    bundle: Bundle
    decision: RunRecord | None
    evaluation: Evaluation | None
    decisions: Sequence[RunRecord]

    @property
    def run(self) -> RunRecord:
        """The run that fitted the model."""
        return self.past_run.run

    def statement(self, key: str) -> list[str]:
        """Return what the table's YAML says about a key, or that it is unknown."""
        value = self.declared.get(key)
        if value is None:
            return [f"{key.replace('_', ' ').capitalize()}: {UNKNOWN} (card.{key} is not declared in the YAML of the table)."]
        return [value] if isinstance(value, str) else [str(item) for item in value]


def write_card(cfg: DictConfig) -> WrittenCard:
    """Write the card of a version or a run as HTML and Markdown.

    Raises
    ------
    HousingError
        If there is no such version or run, or it kept no bundle.
    """
    if cfg.run_id is not None and cfg.version is not None:
        raise ConfigError(f"Expected run_id or version, not both (got run_id={cfg.run_id} and version={cfg.version}).")
    data = _read(cfg, tracking.connect(cfg.mlflow))
    page = build_card(data)
    name = data.subject.replace(" ", "-")
    path = Path(cfg.out or Path(cfg.paths.outputs) / CARDS / f"{data.table}-{name}.html")
    markdown = path.with_suffix(".md")
    with atomic_write(markdown) as partial:
        partial.write_text(to_markdown(page), encoding="utf-8")
    return WrittenCard(write_page(TEMPLATE, path, page=page), markdown, [key for key in CARD_KEYS if not data.declared.get(key)])


def _read(cfg: DictConfig, store: Store) -> CardData:
    subject, run_id = _subject(cfg, store)
    past_run = PastRun.read(store, run_id)
    if tags.MODEL_ID not in past_run.run.tags:
        raise HousingError(f"Run {run_id} has no bundle. Name a run that kept its bundle, or a version.")
    with store.artifacts.bundle(f"models:/{past_run.run.tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    decision, evaluation = latest_decision(cfg, store, past_run)
    about = {tags.CHALLENGER: run_id, tags.RUN_TYPE: "decision"}
    return CardData(
        subject=subject,
        table=str(past_run.cfg.data.name),
        description=str(past_run.cfg.data.get("description") or ""),
        declared=dict(cfg.data.get("card") or {}) if cfg.data.name == past_run.cfg.data.name else {},
        past_run=past_run,
        bundle=bundle,
        decision=decision,
        evaluation=evaluation,
        decisions=store.runs.find_latest(cfg.decisions_experiment, about, 100),
    )


def _subject(cfg: DictConfig, store: Store) -> tuple[str, str]:
    """Return the name of the version or run, and the run's id."""
    if cfg.run_id is not None:
        return f"run {str(cfg.run_id)[:8]}", str(cfg.run_id)
    version = None if cfg.version is None else str(cfg.version)
    if version is None:
        require_declared_alias(cfg.alias, cfg.aliases)
        version = store.registry.version_at(cfg.registered_model, cfg.alias)
    if version is None:
        raise StoreError(f"{cfg.registered_model} has no version at {cfg.alias}. Promote one with: {next_command('promote')}")
    return f"version {version}", store.registry.run_of_version(cfg.registered_model, version)


def introduction(target: Column, description: str) -> str:
    """Return the first paragraph of a card, of a target and a table's description, which may be empty."""
    unit = f" in {target.unit_label}" if target.unit_label else ""
    sentence = f" {description.rstrip('.')}." if description else ""
    return (
        f"This model predicts {target.name}{unit}.{sentence} The sections are those of Mitchell et al. (2019) and of"
        " Annex IV of the EU AI Act (Regulation 2024/1689). Statements about use and limits come from the YAML of the table, all"
        " figures from the run. What is not known is said to be unknown."
    )


def build_card(data: CardData) -> Page:
    """Return the card as a page."""
    intro = introduction(data.bundle.schema.target, data.description)
    page = Page(
        f"Model card: {data.table}, {data.subject}", intro, {f"run {data.run.id}": data.run.run.link}, dict(_details(data))
    )
    page.sections.extend(
        [
            _declared(data, "Intended use (Mitchell: intended use; Annex IV 1)", "intended_use", "users", "out_of_scope"),
            _development(data),
            _columns(data),
            _declared(data, "Factors and groups (Mitchell: factors; Annex IV 3)", "groups"),
            _metrics(data),
            _evaluation(data),
            _slices(data),
            _declared(data, "Ethical considerations and risks (Mitchell: ethical considerations; Annex IV 5)", "risks"),
            _declared(data, "Human oversight (Annex IV 2e, 3)", "human_oversight"),
            _caveats(data),
            _changes(data),
            _monitoring(),
            Section(
                "Standards and declaration of conformity (Annex IV 7, 8)",
                f"{UNKNOWN.capitalize()}: this project applies no harmonised standard and makes no declaration of conformity.",
            ),
        ]
    )
    return page


def _details(data: CardData) -> Iterator[tuple[str, str]]:
    """Yield the facts at the top: Mitchell's model details, and Annex IV 1."""
    card = data.bundle.card
    yield "model", f"{card['model']} on features {card['features']}"
    yield "fitted", str(card["created"])[:10]
    yield "table", f"{data.table}, {card['data']['rows']:,} rows"
    yield "run", data.run.id
    yield "commit", f"{card['code']['commit'][:12]}{' with uncommitted changes' if card['code']['dirty'] else ''}"
    for key in ("owner", "contact", "license"):
        yield key, ", ".join(data.statement(key)) if data.declared.get(key) else UNKNOWN


def _declared(data: CardData, title: str, *keys: str) -> Section:
    if len(keys) == 1:
        return Section(title, bullets=data.statement(keys[0]))
    lines = [
        line if line.endswith("YAML of the table).") else f"{key.replace('_', ' ').capitalize()}: {line}"
        for key in keys
        for line in data.statement(key)
    ]
    return Section(title, bullets=lines)


def _development(data: CardData) -> Section:
    card, cfg = data.bundle.card, data.past_run.cfg
    libraries = ", ".join(f"{name} {version}" for name, version in card["libraries"].items())
    rows = [
        ("data", f"{data.table}, SHA-256 {card['data']['fingerprint']}"),
        ("split", f"{cfg.split['_target_']}, fingerprint {card['split'][:12]}"),
        ("rows", ", ".join(f"{count:,} {part}" for part, count in card["rows"].items())),
        ("fitted on", str(card["fitted_on"])),
        ("target", f"transform {card['target']['transform']}"),
        ("intervals", "conformal" if data.bundle.interval is not None else "none"),
        ("libraries", libraries),
        ("command", f"housing.train {data.run.tags.get('housing.overrides', UNKNOWN)}"),
        ("fit time", f"{data.run.metrics['fit_seconds']:.1f} s on {data.run.tags.get('housing.host', UNKNOWN)}"),
        ("size", f"{data.run.metrics['model_bytes'] / 1e6:.3g} MB, {data.run.metrics['latency_us']:,.0f} µs for one row"),
    ]
    return Section(
        "Training data and development (Mitchell: training data; Annex IV 2)",
        bullets=[f"{name}: {value}" for name, value in rows],
    )


def _columns(data: CardData) -> Section:
    schema = data.bundle.schema
    rows = [
        (column.name, column.description or UNKNOWN, column.type, column.unit_label or "none")
        for column in (*schema.features, schema.target)
    ]
    unused = ", ".join(column.name for column in schema.unused) or "none"
    text = f"The last row is the target. Columns that are present and not used: {unused}."
    return Section("Inputs and output (Annex IV 1, 2)", text, tables=[HtmlTable(("column", "meaning", "type", "unit"), rows, 4)])


def _metrics(data: CardData) -> Section:
    metrics = data.run.metrics
    rows = [("validation", *(f"{metrics[name]:.4f}" for name in ("rmse", "mae", "r2")))]
    if data.decision is not None and "challenger_rmse" in data.decision.metrics:
        scores = (data.decision.metrics.get(f"challenger_{name}") for name in ("rmse", "mae", "r2"))
        rows.append(("test", *(UNKNOWN if score is None else f"{score:.4f}" for score in scores)))
    text = (
        f"Runs are ranked by {data.past_run.cfg.metric}. RMSE and MAE are in the target's unit; RMSE weighs large errors more."
        " Test rows are scored when a promotion judges the run, not to choose between runs."
    )
    if len(rows) == 1:
        text += " Scores on test rows are unknown: no promotion has judged this run."
    return Section("Metrics (Mitchell: metrics; Annex IV 4)", text, tables=[HtmlTable(("rows of", "RMSE", "MAE", "R²"), rows)])


def _evaluation(data: CardData) -> Section:
    title = "Evaluation (Mitchell: evaluation data; Annex IV 2g)"
    evaluation = data.evaluation
    if evaluation is None:
        return Section(title, f"{UNKNOWN.capitalize()}: no full evaluation was made. Promote with evaluate=full.")
    bounds = "unknown, too few test rows"
    if evaluation.rmse_lower is not None and evaluation.rmse_upper is not None:
        bounds = f"{evaluation.rmse_lower:.4f} to {evaluation.rmse_upper:.4f}"
    rows = [("test rows", f"{evaluation.rows:,}", f"{evaluation.scores['rmse']:.4f}")]
    rows += [(f"{r.split} split", f"{r.test_rows:,}", f"{r.scores['rmse']:.4f}") for r in evaluation.harder_splits]
    covered = [f"90 % intervals cover {c.coverage:.1%} of the test rows." for c in evaluation.coverage[:1]]
    return Section(
        title,
        f"95 % bootstrap interval of the test RMSE: {bounds}. The other splits hold out whole locations and areas.",
        bullets=[*covered, *(f"Skipped: {reason}" for reason in evaluation.skipped)],
        tables=[HtmlTable(("rows", "count", "RMSE"), rows)],
    )


def _slices(data: CardData) -> Section:
    title = "Quantitative analyses by slice (Mitchell: quantitative analyses; Annex IV 3)"
    if data.evaluation is None:
        return Section(title, f"{UNKNOWN.capitalize()}: no full evaluation was made.")
    groups = group_tables(data.evaluation.slices)
    return Section(title, GROUPS_TEXT if groups else "", tables=[*groups, slice_table(data.evaluation.slices)])


def _caveats(data: CardData) -> Section:
    measured = [] if data.evaluation is None else data.evaluation.limitations
    lines = [*data.statement("limitations"), *measured]
    return Section("Caveats and recommendations (Mitchell: caveats; Annex IV 3)", bullets=lines)


def _changes(data: CardData) -> Section:
    title = "Changes and decisions (Annex IV 6)"
    if not data.decisions:
        return Section(title, "No decision was made about this run.")
    return Section(title, bullets=[_describe_decision(decision) for decision in data.decisions])


def _describe_decision(decision: RunRecord) -> str:
    tag = decision.tags.get
    moved = f"from version {tag(tags.FROM) or 'none'} to {tag(tags.TO) or 'none'}"
    reason = tag(tags.REASON) or UNKNOWN
    verdict, alias, actor = tag(tags.VERDICT, UNKNOWN), tag(tags.ALIAS, UNKNOWN), tag(tags.ACTOR, UNKNOWN)
    return f"{decision.started_at:%Y-%m-%d %H:%M} UTC, {verdict} at {alias}, {moved}, by {actor}: {reason}"


def _monitoring() -> Section:
    return Section(
        "Monitoring after release (Annex IV 9)",
        "The server counts predictions, errors on true values and drift of each column, and alerts on them. Whether a server that"
        f" does so runs is {UNKNOWN} to this card: python -m housing.doctor checks it.",
    )
