"""Feature blocks: derived columns and the encoding of categories and missing values, matrix in and matrix out."""
