"""The monitoring report: one HTML page about a period of a server, from its log, the monitor's results and the decisions."""
