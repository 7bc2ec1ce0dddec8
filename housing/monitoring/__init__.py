"""Monitoring: a process beside a server that follows its prediction log and analyses each window of rows."""
