"""Description of a file: from a table that somebody has to a commented declaration of its columns, and a page to look at."""
