"""Feature blocks, matrix in and matrix out: derived columns and the encoding of categories."""
