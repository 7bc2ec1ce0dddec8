"""Tools for agents: the work of the commands, served over the Model Context Protocol."""
