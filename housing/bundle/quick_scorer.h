/* The scoring of small trees for processors with vectors of a certain width. tree_walker.c includes this file once for each:
 *
 *   SCORE_BLOCK   name of the function
 *   INSTRUCTIONS  what the processor must know: "avx2" or "avx512f"
 *   WIDTH         number of floats in a vector
 *   GROUPS        number of groups of LANES rows that share the reads of a test; their bits fill half of the registers
 */
#define JOIN(a, b) a##b
#define NAME(prefix, name) JOIN(prefix, name)
#define Floats NAME(SCORE_BLOCK, _floats)
#define Integers NAME(SCORE_BLOCK, _integers)
#define add_leaves NAME(SCORE_BLOCK, _add_leaves)

typedef float Floats __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(WIDTH * sizeof(int32_t))));

/* Add the leaves of `groups` times LANES rows to their sums. `has_high` is 0 if the tree has at most 32 leaves. */
__attribute__((always_inline, target(INSTRUCTIONS)))
static inline void add_leaves(const Ensemble *all, const Tree *tree, const float *values, float *sums, int groups, int has_high)
{
    const Test *test = all->tests + tree->first_test, *end = test + tree->tests;
    const float *leaves = all->leaves + tree->first_leaf;
    const int parts = groups * LANES / WIDTH;
    Py_ssize_t size = 2 * all->width * LANES; /* floats per group */
    Integers low[GROUPS * LANES / WIDTH], high[GROUPS * LANES / WIDTH];
    for (int part = 0; part < parts; part++)
        low[part] = high[part] = (Integers){0} - 1;
    for (; test < end; test++)
#pragma GCC unroll 4
        for (int part = 0; part < parts; part++) {
            const float *from = values + part * WIDTH / LANES * size + (size_t)test->feature * LANES + part * WIDTH % LANES;
            Integers is_false = *(const Floats *)from < test->threshold;
            low[part] &= is_false | test->low;
            if (has_high)
                high[part] &= is_false | test->high;
        }
    for (int part = 0; part < parts; part++) {
        Integers in_high = low[part] == 0, bits = low[part] | (in_high & high[part]);
        Integers lowest = (Integers)__builtin_convertvector(bits & -bits, Floats); /* its exponent is the index of the bit */
        union { Integers vector; int32_t lanes[WIDTH]; } leaf = {((lowest >> 23) & 255) - 127 + (in_high & 32)};
        for (int lane = 0; lane < WIDTH; lane++)
            sums[part * WIDTH + lane] += leaves[leaf.lanes[lane]];
    }
}

__attribute__((target(INSTRUCTIONS)))
static void SCORE_BLOCK(const Ensemble *all, const float *values, int groups, float *sums)
{
    for (const Tree *tree = all->trees; tree < all->trees + all->count; tree++)
        for (int group = 0, step; group < groups; group += step) {
            const float *from = values + group * 2 * all->width * LANES;
            float *to = sums + group * LANES;
            step = tree->tests && groups - group >= GROUPS ? GROUPS : 1;
            if (!tree->tests)
                walk_group(all, tree, from, to);
            else if (step == 1)
                add_leaves(all, tree, from, to, 1, 1);
            else if (tree->tests < 32)
                add_leaves(all, tree, from, to, GROUPS, 0);
            else
                add_leaves(all, tree, from, to, GROUPS, 1);
        }
}

#undef JOIN
#undef NAME
#undef Floats
#undef Integers
#undef add_leaves
#undef SCORE_BLOCK
#undef INSTRUCTIONS
#undef WIDTH
#undef GROUPS
