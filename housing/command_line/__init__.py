"""The command line: Hydra commands, their help texts, console output and the next command to paste."""
