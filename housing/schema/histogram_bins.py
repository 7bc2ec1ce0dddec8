"""Bins of columns with levels: which bin of a histogram a level is counted in."""

from housing.schema.column import OTHER, Column

MAX_LEVEL_BINS = 20  # of learned levels; rarer ones share a bin
REST = "(rest)"
RESERVED_LEVELS = (OTHER, REST)


def bin_names(column: Column) -> list[str]:
    """Return the bin of each code of a bool or category, in the order of the codes."""
    if column.type == "bool":
        return ["false", "true"]
    names = list(column.categories)
    if column.is_learned:
        names[MAX_LEVEL_BINS:] = [REST] * len(names[MAX_LEVEL_BINS:])
    return names if column.unseen == "refuse" and names else [*names, OTHER]
