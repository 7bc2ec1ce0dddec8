/* The scoring of small trees with vectors of a certain width. tree_walker.c includes this file once for each:
 *
 *   FIND_LEAVES   name of the function
 *   INSTRUCTIONS  attribute with what the processor must know
 *   WIDTH         number of bytes in a vector
 */
#define JOIN(a, b) a##b
#define NAME(prefix, name) JOIN(prefix, name)
#define Bytes NAME(FIND_LEAVES, _bytes)
#define find_leaves_of NAME(FIND_LEAVES, _of_parts)

typedef int8_t Bytes __attribute__((vector_size(WIDTH), may_alias));

/* Write the leaves of `parts` times WIDTH rows. */
__attribute__((always_inline)) INSTRUCTIONS
static inline void find_leaves_of(const Ensemble *all, const SmallTree *tree, const int8_t *codes, uint8_t *leaves, const int parts)
{
    const Test *test = all->tests + tree->first_test;
    Bytes bits[MOST_PARTS], base[MOST_PARTS], kept[MOST_PARTS]; /* of the first group of leaves with one that remains, and its index */
    for (int part = 0; part < parts; part++)
        bits[part] = base[part] = (Bytes){0};
    for (int group = (int)tree->groups - 1; group >= 0; group--) {
        for (int part = 0; part < parts; part++)
            kept[part] = (Bytes){0} - 1;
        for (const Test *end = test + tree->tests[group]; test < end; test++) {
            const Bytes *from = (const Bytes *)(codes + (size_t)test->column * ROWS);
            Bytes bound = (Bytes){0} + test->bound, remaining = (Bytes){0} + test->remaining;
            for (int part = 0; part < parts; part++)
                kept[part] &= (from[part] < bound) | remaining;
        }
        for (int part = 0; part < parts; part++) {
            Bytes is_empty = kept[part] == 0;
            bits[part] = (bits[part] & is_empty) | kept[part];
            base[part] = (base[part] & is_empty) | (~is_empty & (int8_t)(group * GROUP));
        }
    }
    for (int part = 0; part < parts; part++) {
        Bytes lowest = bits[part] & -bits[part]; /* at most one bit, whose index is added to the base */
        ((Bytes *)leaves)[part] =
            base[part] + (((lowest & 0x0F) == 0) & 4) + (((lowest & 0x33) == 0) & 2) + (((lowest & 0x55) == 0) & 1);
    }
}

INSTRUCTIONS
static void FIND_LEAVES(const Ensemble *all, const SmallTree *tree, const int8_t *codes, int rows, uint8_t *leaves)
{
    for (int row = 0; row < rows; row += MOST_PARTS * WIDTH)
        if (rows - row > 4 * WIDTH)
            find_leaves_of(all, tree, codes + row, leaves + row, MOST_PARTS);
        else if (rows - row > 2 * WIDTH)
            find_leaves_of(all, tree, codes + row, leaves + row, 4);
        else if (rows - row > WIDTH)
            find_leaves_of(all, tree, codes + row, leaves + row, 2);
        else
            find_leaves_of(all, tree, codes + row, leaves + row, 1);
}

#undef JOIN
#undef NAME
#undef Bytes
#undef find_leaves_of
#undef FIND_LEAVES
#undef INSTRUCTIONS
#undef WIDTH
