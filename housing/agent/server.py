"""The MCP server: registers the tools that the rights allow, and serves them on standard input and output."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial, wraps
from typing import Any

import anyio
from anyio.to_thread import run_sync
from hydra.core.global_hydra import GlobalHydra
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.fastmcp.prompts import Prompt
from mcp.server.fastmcp.tools import Tool
from mcp.types import ToolAnnotations

from housing.agent.prompt import INSTRUCTIONS, experiment_loop
from housing.agent.reading import Document, ReadingTools
from housing.agent.settings import AgentSettings
from housing.agent.trainings import Trainings
from housing.agent.writing import PromotionTools, TrainingTools
from housing.api.documents import ServedTools
from housing.command_line.output import to_json_value
from housing.core.errors import HousingError
from housing.core.printable import printable

STDIN, STDOUT, STDERR = 0, 1, 2  # file descriptors

log = logging.getLogger(__name__)


def list_tools(settings: AgentSettings) -> ServedTools:
    """Return the names of the tools that the rights allow."""
    reading, writing = _tools(settings)
    return ServedTools(sorted(settings.rights), [tool.__name__ for tool in (*reading, *writing)])


def describe_tools(settings: AgentSettings) -> list[dict[str, Any]]:
    """Return the tools that the rights allow, as a client sees them: name, description and JSON schemas."""
    return [
        {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters, "outputSchema": tool.output_schema}
        for tool in _served_tools(settings)
    ]


def serve(settings: AgentSettings) -> None:
    """Serve the tools until the client closes standard input."""
    GlobalHydra.instance().clear()  # Hydra has composed this command's config; the tools compose those of other commands
    server = FastMCP("housing", instructions=INSTRUCTIONS, log_level="WARNING", tools=_served_tools(settings))
    server.add_prompt(Prompt.from_function(experiment_loop))
    stdin, stdout = sys.stdin, sys.stdout
    _reserve_streams()
    try:
        server.run()
    finally:
        sys.stdin, sys.stdout = stdin, stdout  # the library has closed those of the protocol


def _served_tools(settings: AgentSettings) -> list[Tool]:
    lock = anyio.Lock()  # Project works on the environment of the process, so one tool runs at a time
    return [
        _served_tool(_as_task(tool, lock), ToolAnnotations(readOnlyHint=is_reading, openWorldHint=False))
        for functions, is_reading in zip(_tools(settings), (True, False), strict=True)
        for tool in functions
    ]


def _tools(
    settings: AgentSettings,
) -> tuple[Sequence[Callable[..., object]], Sequence[Callable[..., object]]]:
    """Return the tools that read, and those that write and are allowed."""
    trainings = Trainings(settings.context)
    reading = ReadingTools(settings, trainings)
    training = TrainingTools(trainings, reading).functions if "train" in settings.rights else []
    promotion = PromotionTools(settings).functions if "promote" in settings.rights else []
    return reading.functions, [*training, *promotion]


def _reserve_streams() -> None:
    """Keep standard input and output for the protocol.

    Whatever else is printed goes to stderr, and nothing else can read the input. This holds for subprocesses and compiled
    libraries too, since the file descriptors themselves are redirected.
    """
    sys.stdout.flush()
    protocol_in, protocol_out = os.dup(STDIN), os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STDIN)
    os.close(nothing)
    sys.stdin = open(protocol_in, encoding="utf-8")  # noqa: SIM115  # pylint: disable=consider-using-with  # until the process ends
    sys.stdout = open(protocol_out, "w", encoding="utf-8")  # noqa: SIM115  # pylint: disable=consider-using-with


def _served_tool(function: Callable[..., Any], annotations: ToolAnnotations) -> Tool:
    """Return a tool that refuses arguments that its function does not have. The library would ignore them."""
    tool = Tool.from_function(function, annotations=annotations)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool


def _as_task(tool: Callable[..., object], lock: anyio.Lock) -> Callable[..., Any]:
    """Return a tool that runs in a thread, so that the server answers pings meanwhile."""

    @wraps(tool)
    async def run(*args: Any, **arguments: Any) -> Document:
        async with lock:
            return await run_sync(partial(_call, tool, *args, **arguments))

    return run


def _call(tool: Callable[..., object], *args: Any, **arguments: Any) -> Document:
    """Call a tool, and return its result or raise its error with escaped control characters."""
    try:
        with redirect_stdout(sys.stderr):
            document: Document = _escape(to_json_value(tool(*args, **arguments)))
            return document
    except HousingError as error:
        raise ToolError(printable(str(error))) from error
    except Exception as error:
        log.exception("Tool %s failed", tool.__name__)
        raise ToolError(printable(f"{type(error).__name__}: {error}")) from error


def _escape(value: Any) -> Any:
    """Return a JSON value whose texts are printable: they come from tables, stores and requests."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _escape(member) for name, member in value.items()}
    return [_escape(member) for member in value] if isinstance(value, list) else value
