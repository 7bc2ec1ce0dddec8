/* Tree walker: evaluates tree ensembles without data-dependent branches, which processors mispredict half of the time.
 *
 * One step is  node = left + (value >= threshold).  The two children of a node are adjacent. A leaf has the threshold NaN,
 * so its comparison is false, and `left` is its own index: a walk stays there. Every row therefore takes the same number
 * of steps, and LANES walks run in parallel: one tree for LANES rows or, for the remaining rows, LANES trees for one row.
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

typedef struct { float threshold; uint32_t feature, left; float weight; } Node;
typedef struct { uint32_t root, depth; } Tree;
typedef struct { const Node *nodes; const Tree *trees; Py_ssize_t count, width; float base; } Ensemble;

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

static void walk_block(const Ensemble *all, const double *rows, int groups, float *values, double *sums)
{
    float summed[LANES * BLOCK] = {0};
    Py_ssize_t size = 2 * all->width * LANES; /* floats per group of LANES rows */
    for (int row = 0; row < groups * LANES; row++)
        fill_lanes(rows + row * all->width, all->width, values + row / LANES * size + row % LANES, 1);
    for (const Tree *tree = all->trees; tree < all->trees + all->count; tree++)
        for (int group = 0; group < groups; group++) {
            uint32_t at[LANES];
            for (int lane = 0; lane < LANES; lane++)
                at[lane] = tree->root;
            descend(all->nodes, values + group * size, at, tree->depth);
            for (int lane = 0; lane < LANES; lane++)
                summed[group * LANES + lane] += all->nodes[at[lane]].weight;
        }
    for (int row = 0; row < groups * LANES; row++)
        sums[row] = summed[row] + all->base;
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
    for (Py_ssize_t groups; (groups = Py_MIN(count / LANES, BLOCK)) > 0; count -= groups * LANES) {
        walk_block(all, rows, (int)groups, values, sums);
        rows += groups * LANES * all->width;
        sums += groups * LANES;
    }
    for (; count > 0; count--, rows += all->width)
        *sums++ = walk_row(all, rows, values);
}

static PyObject *walk(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *trees;
    Ensemble all;
    Py_buffer columns, sums;
    if (!PyArg_ParseTuple(args, "SSnfy*w*", &nodes, &trees, &all.width, &all.base, &columns, &sums))
        return NULL;
    all.nodes = (const Node *)PyBytes_AS_STRING(nodes);
    all.trees = (const Tree *)PyBytes_AS_STRING(trees);
    all.count = PyBytes_GET_SIZE(trees) / (Py_ssize_t)sizeof(Tree);
    Py_ssize_t rows = sums.len / (Py_ssize_t)sizeof(double);
    Py_ssize_t row = all.width > 0 && all.width < WIDEST ? all.width * (Py_ssize_t)sizeof(double) : 0; /* bytes */
    float *values = NULL;
    uint64_t steps = 0;
    for (const Tree *tree = all.trees; tree < all.trees + all.count; tree++)
        steps += tree->depth;
    if (row == 0 || columns.len % row || sums.len % sizeof(double) || columns.len / row != rows
        || ((uintptr_t)columns.buf | (uintptr_t)sums.buf) % sizeof(double))
        PyErr_Format(PyExc_ValueError, "columns and sums must be float64 of shape (rows, %zd) and (rows,) (got %zd and %zd bytes).",
                     all.width, columns.len, sums.len);
    else if ((values = PyMem_Malloc(sizeof(float) * 2 * LANES * all.width * (rows < LANES ? 1 : BLOCK))) == NULL)
        PyErr_NoMemory();
    else if ((uint64_t)rows * steps < 100000) /* about 100 us; releasing the interpreter lock can take longer than a row */
        walk_rows(&all, columns.buf, rows, values, sums.buf);
    else {
        Py_BEGIN_ALLOW_THREADS
        walk_rows(&all, columns.buf, rows, values, sums.buf);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(values);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&sums);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *check(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *trees;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "SSn", &nodes, &trees, &width))
        return NULL;
    size_t known = PyBytes_GET_SIZE(nodes) / sizeof(Node), count = PyBytes_GET_SIZE(trees) / sizeof(Tree);
    int fits = PyBytes_GET_SIZE(nodes) % sizeof(Node) == 0 && PyBytes_GET_SIZE(trees) % sizeof(Tree) == 0;
    fits = fits && width > 0 && width < WIDEST;
    const Node *node = (const Node *)PyBytes_AS_STRING(nodes);
    for (const Node *end = node + known; fits && node < end; node++)
        fits = node->left + (size_t)!isnan(node->threshold) < known && node->feature < 2 * (size_t)width;
    const Tree *tree = (const Tree *)PyBytes_AS_STRING(trees);
    for (const Tree *end = tree + count; fits && tree < end; tree++)
        fits = tree->root < known;
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "A tree, node, child or column is out of range.");
    return fits ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef functions[] = {
    {"check", check, METH_VARARGS, "check(nodes, trees, width): raise ValueError if a walk could read outside of the arrays."},
    {"walk", walk, METH_VARARGS, "walk(nodes, trees, width, base, columns, sums): write the sums; the arguments must have passed check()."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef tree_walker = {PyModuleDef_HEAD_INIT, "tree_walker", "Evaluates tree ensembles.", -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tree_walker(void)
{
    return PyModule_Create(&tree_walker);
}
