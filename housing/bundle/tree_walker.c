/* Tree walker: evaluates tree ensembles without data-dependent branches, which processors mispredict half of the time.
 *
 * Many rows: trees of at most 64 leaves are scored as QuickScorer does (Lucchese et al., SIGIR 2015). The leaves of a tree
 * are the bits of a number, from left to right. Each inner node whose comparison is true clears the leaves of its left
 * subtree; the lowest bit that remains is the leaf of the row. quick_scorer.h does it, with the processor's vectors.
 *
 * Few rows, larger trees and other processors: one step is  node = left + (value >= threshold).  The two children of a
 * node are adjacent. A leaf has the threshold NaN, so its comparison is false, and `left` is its own index: a walk stays
 * there. Every row therefore takes the same number of steps, and LANES walks run in parallel: one tree for LANES rows, or
 * LANES trees for one row.
 *
 * Each value is stored twice. A missing value (NaN) becomes +infinity, which goes right, and -infinity, which goes left.
 * The feature of a node is its column if missing values go right, and its column + width if they go left.
 *
 * Sums are float32, in the order of the trees, and the base is added last. ONNX Runtime does the same, so the results are
 * equal in every bit.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

enum { LANES = 16, BLOCK = 8, WIDEST = 1 << 20 }; /* LANES * BLOCK rows fit in the L1 or L2 cache while all trees visit them */
enum { MOST_LEAVES = 64, FEW_ROWS = 4 }; /* up to this number, rows are walked one by one */
enum { ALIGNMENT = 64 }; /* bytes of a cache line */

typedef struct { float threshold; uint32_t feature, left; float weight; } Node;
typedef struct { float threshold; uint32_t feature; int32_t low, high; } Test; /* low, high: the leaves that remain if it is true */
typedef struct { uint32_t root, depth, first_test, tests, first_leaf; } Tree; /* tests is 0 if it has none or too many leaves */
typedef struct {
    const Node *nodes; const Tree *trees; const Test *tests; const float *leaves; Py_ssize_t count, width; float base;
} Ensemble;

static void descend(const Node *nodes, const float *values, uint32_t *restrict at, uint32_t steps)
{
    for (; steps > 0; steps--)
#pragma GCC unroll 16
        for (int lane = 0; lane < LANES; lane++) {
            const Node *node = nodes + at[lane];
            at[lane] = node->left + (values[(size_t)node->feature * LANES + lane] >= node->threshold);
        }
}

/* Copy a row to the given number of lanes. */
static void fill_lanes(const double *row, Py_ssize_t width, float *values, int lanes)
{
    for (Py_ssize_t column = 0; column < width; column++, values += LANES) {
        float value = (float)row[column];
        for (int lane = 0; lane < lanes; lane++) {
            values[lane] = isnan(value) ? INFINITY : value;
            values[width * LANES + lane] = isnan(value) ? -INFINITY : value;
        }
    }
}

static void walk_group(const Ensemble *all, const Tree *tree, const float *values, float *sums)
{
    uint32_t at[LANES];
    for (int lane = 0; lane < LANES; lane++)
        at[lane] = tree->root;
    descend(all->nodes, values, at, tree->depth);
    for (int lane = 0; lane < LANES; lane++)
        sums[lane] += all->nodes[at[lane]].weight;
}

#if defined(__x86_64__) && defined(__GNUC__)
#define SCORE_BLOCK score_block_avx2
#define INSTRUCTIONS "avx2"
#define WIDTH 8
#define GROUPS 2
#include "quick_scorer.h"
#define SCORE_BLOCK score_block_avx512
#define INSTRUCTIONS "avx512f"
#define WIDTH 16
#define GROUPS 4
#include "quick_scorer.h"
#endif

static void walk_block(const Ensemble *all, const float *values, int groups, float *sums)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f"))
        return score_block_avx512(all, values, groups, sums);
    if (__builtin_cpu_supports("avx2"))
        return score_block_avx2(all, values, groups, sums);
#endif
    for (const Tree *tree = all->trees; tree < all->trees + all->count; tree++)
        for (int group = 0; group < groups; group++)
            walk_group(all, tree, values + group * 2 * all->width * LANES, sums + group * LANES);
}

static double walk_row(const Ensemble *all, const double *row, float *values)
{
    float sum = 0;
    fill_lanes(row, all->width, values, LANES);
    for (Py_ssize_t first = 0; first < all->count; first += LANES) {
        int count = (int)Py_MIN(all->count - first, LANES);
        uint32_t at[LANES] = {0}, depth = 0;
        for (int lane = 0; lane < count; lane++) {
            at[lane] = all->trees[first + lane].root;
            depth = Py_MAX(depth, all->trees[first + lane].depth);
        }
        descend(all->nodes, values, at, depth);
        for (int lane = 0; lane < count; lane++)
            sum += all->nodes[at[lane]].weight;
    }
    return sum + all->base;
}

static void walk_rows(const Ensemble *all, const double *rows, Py_ssize_t count, float *values, double *sums)
{
    while (count > FEW_ROWS) {
        int block = (int)Py_MIN(count, LANES * BLOCK);
        float summed[LANES * BLOCK] = {0};
        for (int row = 0; row < block; row++)
            fill_lanes(rows + row * all->width, all->width, values + row / LANES * 2 * all->width * LANES + row % LANES, 1);
        walk_block(all, values, (block + LANES - 1) / LANES, summed); /* lanes without a row have any values */
        for (int row = 0; row < block; row++)
            sums[row] = summed[row] + all->base;
        rows += block * all->width;
        sums += block;
        count -= block;
    }
    for (; count > 0; count--, rows += all->width)
        *sums++ = walk_row(all, rows, values);
}

static PyObject *walk(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *trees, *tests, *leaves;
    Ensemble all;
    Py_buffer columns, sums;
    if (!PyArg_ParseTuple(args, "SSSSnfy*w*", &nodes, &trees, &tests, &leaves, &all.width, &all.base, &columns, &sums))
        return NULL;
    all.nodes = (const Node *)PyBytes_AS_STRING(nodes);
    all.trees = (const Tree *)PyBytes_AS_STRING(trees);
    all.tests = (const Test *)PyBytes_AS_STRING(tests);
    all.leaves = (const float *)PyBytes_AS_STRING(leaves);
    all.count = PyBytes_GET_SIZE(trees) / (Py_ssize_t)sizeof(Tree);
    Py_ssize_t rows = sums.len / (Py_ssize_t)sizeof(double);
    Py_ssize_t row = all.width > 0 && all.width < WIDEST ? all.width * (Py_ssize_t)sizeof(double) : 0; /* bytes */
    char *memory = NULL;
    if (row == 0 || columns.len % row || sums.len % sizeof(double) || columns.len / row != rows
        || ((uintptr_t)columns.buf | (uintptr_t)sums.buf) % sizeof(double))
        PyErr_Format(PyExc_ValueError, "columns and sums must be float64 of shape (rows, %zd) and (rows,) (got %zd and %zd bytes).",
                     all.width, columns.len, sums.len);
    else if ((memory = PyMem_Malloc(sizeof(float) * 2 * LANES * all.width * (rows > LANES ? BLOCK : 1) + ALIGNMENT)) == NULL)
        PyErr_NoMemory();
    else {
        float *values = (float *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
        if (rows * all.count < 10000) /* about 100 us; releasing the interpreter lock can take longer than a row */
            walk_rows(&all, columns.buf, rows, values, sums.buf);
        else {
            Py_BEGIN_ALLOW_THREADS
            walk_rows(&all, columns.buf, rows, values, sums.buf);
            Py_END_ALLOW_THREADS
        }
    }
    PyMem_Free(memory);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&sums);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *check(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *trees, *tests, *leaves;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "SSSSn", &nodes, &trees, &tests, &leaves, &width))
        return NULL;
    size_t known_nodes = PyBytes_GET_SIZE(nodes) / sizeof(Node), count = PyBytes_GET_SIZE(trees) / sizeof(Tree);
    size_t known_tests = PyBytes_GET_SIZE(tests) / sizeof(Test), known_leaves = PyBytes_GET_SIZE(leaves) / sizeof(float);
    int fits = PyBytes_GET_SIZE(nodes) % sizeof(Node) == 0 && PyBytes_GET_SIZE(trees) % sizeof(Tree) == 0
        && PyBytes_GET_SIZE(tests) % sizeof(Test) == 0 && PyBytes_GET_SIZE(leaves) % sizeof(float) == 0;
    fits = fits && width > 0 && width < WIDEST;
    const Node *node = (const Node *)PyBytes_AS_STRING(nodes);
    for (const Node *end = node + known_nodes; fits && node < end; node++)
        fits = node->left + (size_t)!isnan(node->threshold) < known_nodes && node->feature < 2 * (size_t)width;
    const Test *test = (const Test *)PyBytes_AS_STRING(tests);
    for (const Test *end = test + known_tests; fits && test < end; test++)
        fits = test->feature < 2 * (size_t)width && test->high < 0; /* a leaf remains after any tests */
    const Tree *tree = (const Tree *)PyBytes_AS_STRING(trees);
    for (const Tree *end = tree + count; fits && tree < end; tree++)
        fits = tree->root < known_nodes && (tree->tests == 0 || ((size_t)tree->first_test + tree->tests <= known_tests
                                                                && (size_t)tree->first_leaf + MOST_LEAVES <= known_leaves));
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "A tree, node, child, leaf or column is out of range.");
    return fits ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef functions[] = {
    {"check", check, METH_VARARGS, "check(nodes, trees, tests, leaves, width): raise ValueError if a walk could read outside of the arrays."},
    {"walk", walk, METH_VARARGS, "walk(nodes, trees, tests, leaves, width, base, columns, sums): write the sums; the arguments must have passed check()."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef tree_walker = {PyModuleDef_HEAD_INIT, "tree_walker", "Evaluates tree ensembles.", -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tree_walker(void)
{
    return PyModule_Create(&tree_walker);
}
