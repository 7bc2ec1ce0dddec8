"""The engine `stream`: tables larger than memory, which are read in chunks."""
