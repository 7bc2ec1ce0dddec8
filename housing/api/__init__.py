"""Python interface of the project, for notebooks and scripts: the work of the commands, with objects as results."""
