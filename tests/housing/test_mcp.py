"""Twelve tasks of an agent: a real MCP client, the real server, and the table rentals."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from housing.core.environment import PROJECT
from tests.support.commands import command, user_error
from tests.support.server import Server
from tests.support.tables import FLAT, TABLES, rentals_frame
from tests.support.waiting import wait_for

pytest.importorskip("mcp", reason="mcp, an extra, is not installed")
# pylint: disable=wrong-import-position
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, TextContent

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("mcp")]

OVERRIDES = "overrides: [data=rentals, features=none, figures=false, refit=false, interval=none, gate.smoke_test_seconds=null]\n"
WRITING = {"declare_table", "start_training", "stop_training", "promote", "rollback"}
ESCAPE = "\x1b]0;owned\x07\u202e"  # renames the window of a terminal, and reverses the reading direction


@dataclass(frozen=True)
class Agent:
    """An agent: a client of the server, in whose thread it runs."""

    portal: BlockingPortal
    session: ClientSession
    home: Path

    def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call a tool."""
        return self.portal.call(self.session.call_tool, tool, arguments)

    def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its document, which is the text of the answer too."""
        answer = self.call(tool, **arguments)
        assert not answer.isError, answer.content
        assert isinstance(answer.content[0], TextContent) and answer.structuredContent is not None
        assert json.loads(answer.content[0].text) == answer.structuredContent
        return answer.structuredContent

    def error(self, tool: str, **arguments: Any) -> str:
        """Call a tool that fails, and return its message."""
        answer = self.call(tool, **arguments)
        assert answer.isError and isinstance(answer.content[0], TextContent)
        return answer.content[0].text.removeprefix(f"Error executing tool {tool}: ")

    def train(self, *overrides: str) -> dict[str, Any]:
        """Start a training, wait until it has ended, and return its state."""
        training_id = self.ask("start_training", overrides=list(overrides))["id"]
        wait_for(lambda: self.ask("follow_training", training_id=training_id)["state"] != "running", "the training has ended")
        return self.ask("follow_training", training_id=training_id)


@pytest.fixture(scope="module")
def agent_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project of one's own with the table rentals and no runs."""
    home = tmp_path_factory.mktemp("agent")
    for folder in ("data", "conf/data"):
        (home / folder).mkdir(parents=True)
    rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
    shutil.copy(TABLES / "data" / "rentals.yaml", home / "conf" / "data")
    shutil.copy(empty_store, home / "mlflow.db")
    (home / "housing.yaml").write_text(OVERRIDES, encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def agent(agent_home: Path, rentals_server: Server) -> Iterator[Agent]:
    """An agent with all rights, whose drift is that of the server of rentals."""
    words = ["-m", "housing.mcp", "rights=[train,promote]", f"server_url={rentals_server.url}"]
    environment = {**os.environ, "HOUSING_HOME": str(agent_home)}
    parameters = StdioServerParameters(command=sys.executable, args=words, env=environment, cwd=PROJECT)
    noise: list[Exception] = []

    async def keep_noise(message: object) -> None:
        if isinstance(message, Exception):  # a line of standard output that is no message of the protocol
            noise.append(message)

    with (
        (agent_home / "mcp.log").open("w", encoding="utf-8") as log,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(stdio_client(parameters, errlog=log)) as streams,
        portal.wrap_async_context_manager(ClientSession(streams[0], streams[1], message_handler=keep_noise)) as session,
    ):
        portal.call(session.initialize)
        yield Agent(portal, session, agent_home)
    assert not noise


@pytest.fixture(scope="module")
def sweep(agent: Agent) -> dict[str, Any]:
    """A sweep over two models that has ended."""
    return agent.train("model=linear,decision_tree")


@pytest.fixture(scope="module")
def runs(sweep: dict[str, Any]) -> dict[str, str]:
    """The runs of the sweep by model."""
    return {job["overrides"][-1].partition("=")[2]: job["run_id"] for job in sweep["document"]["result"]["jobs"]}


@pytest.fixture(scope="module")
def decisions(agent: Agent, runs: dict[str, str]) -> list[dict[str, Any]]:
    """Decisions about the decision tree, then the better linear model, then the decision tree again."""
    return [agent.ask("promote", run_id=runs[model]) for model in ("decision_tree", "linear", "decision_tree")]


def test_describe_the_table(agent: Agent) -> None:
    described = agent.ask("describe_table")
    assert described["table"]["columns"]["rent"]["role"] == "target"
    assert described["file_exists"] and described["metric"] == "rmse"
    assert "lienar" not in agent.ask("list_options")["help"]


def test_declare_a_new_table(agent: Agent) -> None:
    rentals_frame(100).rename(columns={"quarter": f"quarter{ESCAPE}"}).to_csv(agent.home / "data" / "flats.csv", index=False)
    described = agent.ask("describe_file", file="data/flats.csv")
    assert described["rows"] == 100 and "quarter\\x1b]0;owned\\x07\\u202e" in described["columns"]
    declared = agent.ask("declare_table", file="data/flats.csv", target="rent")
    assert Path(declared["declaration"]) == agent.home / "conf" / "data" / "flats.yaml"
    assert agent.ask("describe_table", table="flats")["table"]["columns"]["rent"]["role"] == "target"
    assert "must be in the folder of the project" in agent.error("describe_file", file="/etc/passwd")


def test_start_and_follow_a_sweep(agent: Agent, sweep: dict[str, Any]) -> None:
    assert (sweep["state"], sweep["document"]["exit_code"]) == ("ended", 0), sweep
    assert [job["status"] for job in sweep["document"]["result"]["jobs"]] == ["FINISHED", "FINISHED"]
    assert agent.ask("list_trainings")["trainings"][-1]["id"] == sweep["id"]
    assert "no training 'none'" in agent.error("follow_training", training_id="none")


def test_list_and_compare_runs(agent: Agent, runs: dict[str, str]) -> None:
    listed = {run["run_id"]: run for run in agent.ask("list_runs")["runs"]}
    assert set(runs.values()) <= set(listed)
    tools = {tool.name: tool for tool in agent.portal.call(agent.session.list_tools).tools}
    of_runs, of_differences = (tools[name].outputSchema or {} for name in ("list_runs", "compare_runs"))
    assert of_runs["required"] == ["runs"] and of_differences["required"] == ["differences"]
    assert set(of_runs["$defs"]["ListedRun"]["required"]) == set(next(iter(listed.values())))
    differences = agent.ask("compare_runs", run_ids=list(runs.values()))["differences"]
    assert differences["rmse"] == {run_id: listed[run_id]["metrics"]["rmse"] for run_id in runs.values()}
    assert "nonsense" in agent.error("compare_runs", run_ids=["nonsense", *runs.values()])
    assert "number of run_ids must be a whole number from 2 to 200 (got 0)" in agent.error("compare_runs", run_ids=[])
    assert "limt" in agent.error("list_runs", limt=1)


def test_promote_and_say_why_a_run_was_rejected(agent: Agent, runs: dict[str, str], decisions: list[dict[str, Any]]) -> None:
    assert [(decision["verdict"], decision["version"]) for decision in decisions] == [
        ("PROMOTE", "1"),
        ("PROMOTE", "2"),
        ("REJECT", "2"),
    ]
    why = agent.ask("explain_decision", run_id=runs["decision_tree"])
    assert why["verdict"] == "REJECT" and why["reasons"] == decisions[2]["reasons"]
    assert why["difference"]["lower"] > 0
    assert agent.ask("explain_decision", run_id=runs["linear"])["verdict"] == "PROMOTE"
    assert [decision["verdict"] for decision in agent.ask("list_decisions", limit=3)["decisions"]][-1] == "PROMOTE"
    assert "run_id must be letters" in agent.error("explain_decision", run_id="x' or tags.y = '1")
    assert "no finished decision about nonsense" in agent.error("explain_decision", run_id="nonsense")


@pytest.mark.usefixtures("decisions")
def test_predict_and_explain_rows(agent: Agent) -> None:
    predicted = agent.ask("predict", rows=[FLAT, {**FLAT, "built": None}])
    assert predicted["unit"] == "EUR a month" and len(predicted["predictions"]) == 2
    explained = agent.ask("explain", row=FLAT)
    assert explained["prediction"] == pytest.approx(predicted["predictions"][0]["prediction"])
    assert set(explained["shapley_values"]) == set(FLAT)
    assert "number of rows must be a whole number from 1 to 1000 (got 0)" in agent.error("predict", rows=[])
    assert "row 0, area: Not a number: 'much\\x1b'" in agent.error("predict", rows=[{**FLAT, "area": "much\x1b"}])


def test_read_drift(agent: Agent, rentals_server: Server) -> None:
    rows = [{**FLAT, "area": 149.0}] * 200
    assert rentals_server.predict({"instances": rows}).status == 200

    def drift() -> dict[str | None, dict[str, Any]]:
        (version,) = agent.ask("read_drift")["versions"]
        return {column["column"]: column for column in version["columns"]}

    wait_for(lambda: drift()["area"]["values"] >= 200, "the rows are counted")
    assert drift()["area"]["psi"] > 0.25
    assert set(drift()) == {*FLAT, None}


@pytest.mark.usefixtures("decisions")
def test_roll_back(agent: Agent) -> None:
    back = agent.ask("rollback", reason="prices are off, it's odd")
    assert (back["verdict"], back["previous_version"], back["version"]) == ("ROLLBACK", "2", "1")
    assert "it’s odd" in agent.ask("list_decisions", limit=1)["decisions"][0]["reason"]


def test_stop_a_search(agent: Agent) -> None:
    training = agent.ask("start_training", overrides=["search=xgboost"])
    assert training["state"] == "running"
    assert f"Training {training['id']} is still running" in agent.error("start_training", overrides=["model=linear"])
    wait_for(lambda: len(agent.ask("follow_training", training_id=training["id"])["jobs"]) > 1, "a second trial has started")
    agent.ask("stop_training", training_id=training["id"])
    wait_for(lambda: agent.ask("follow_training", training_id=training["id"])["state"] != "running", "the training has ended")


def test_wrong_and_forbidden_overrides_start_nothing(agent: Agent) -> None:
    n_trainings = len(agent.ask("list_trainings")["trainings"])
    assert "Did you mean model=linear" in agent.error("start_training", overrides=["model=lienar"])
    assert "may not set data.path" in agent.error("start_training", overrides=["model=linear", "data.path=/etc/passwd"])
    assert "table must be letters" in agent.error("list_runs", table="rentals,towns")
    for source in ("models:/${oc.env:HOME}@staging", "/etc", "https://example.org/model"):
        assert "source must be MLflow's address" in agent.error("predict", rows=[FLAT], source=source)
    for target in ("${oc.env:HOME}", "rent',overwrite='true"):
        assert "in target" in agent.error("declare_table", file="data/rentals.csv", target=target)
    assert len(agent.ask("list_trainings")["trainings"]) == n_trainings


def test_the_published_tools_are_those_of_an_agent_with_all_rights(agent: Agent) -> None:
    published = json.loads((PROJECT / "docs" / "reference" / "agent-tools.json").read_text(encoding="utf-8"))
    served = agent.portal.call(agent.session.list_tools).tools
    assert published == [
        {
            "name": tool.name,
            "description": tool.description,
            "inputSchema": tool.inputSchema,
            "outputSchema": tool.outputSchema,
        }
        for tool in served
    ]


def test_the_prompt_names_tools_that_exist(agent: Agent) -> None:
    names = {tool.name for tool in agent.portal.call(agent.session.list_tools).tools}
    prompt = agent.portal.call(agent.session.get_prompt, "experiment_loop", {"goal": "half of the error"})
    assert isinstance(prompt.messages[0].content, TextContent)
    text = prompt.messages[0].content.text
    assert "Goal: half of the error" in text
    assert {name for name in names if name in text} >= {"describe_table", "start_training", "follow_training", "promote"}


def test_without_a_right_no_tool_writes(agent_home: Path) -> None:
    listed = [
        json.loads(command(agent_home, "housing.mcp", f"rights={rights}", "output=json").out)["result"]["tools"]
        for rights in ("[]", "[train,promote]")
    ]
    assert not WRITING & set(listed[0])
    assert set(listed[1]) == {*listed[0], *WRITING}
    assert "(got ['train', 'delete'])" in user_error(command(agent_home, "housing.mcp", "rights=[train,delete]"))
    assert "(got train)" in user_error(command(agent_home, "housing.mcp", "rights=train"))


def test_the_end_of_standard_input_is_a_normal_end(agent_home: Path) -> None:
    result = command(agent_home, "housing.mcp")
    assert (result.code, result.out, result.err) == (0, "", "")
