"""Serve tools and a prompt to an agent over the Model Context Protocol (MCP), on standard input and output.

python -m housing.mcp rights=[train,promote]
"""

from importlib.util import find_spec

from omegaconf import DictConfig, ListConfig

from housing.command_line.command import command
from housing.command_line.output import Document, Result
from housing.core.errors import ConfigError

RIGHTS = ("train", "promote")


@command("mcp")
def main(cfg: DictConfig) -> Result:
    """Serve until the client closes standard input. With output=json, list the tools instead."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    if find_spec("mcp") is None:
        raise ConfigError("housing.mcp needs the package mcp. Install it: pip install 'housing[mcp]'")
    if not isinstance(cfg.rights, ListConfig) or any(right not in RIGHTS for right in cfg.rights):
        raise ConfigError(f"rights must be a list of {' and '.join(RIGHTS)}, such as rights=[train] (got {cfg.rights}).")
    from housing.agent.server import list_tools, serve
    from housing.agent.settings import AgentSettings

    settings = AgentSettings.from_config(cfg)
    if Document.current is None:
        serve(settings)
    return Result(list_tools(settings))


if __name__ == "__main__":
    main()
