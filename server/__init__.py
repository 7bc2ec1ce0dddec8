"""The thin server: it reads what was published and knows no table by name."""
