/* Tree walker: evaluates tree ensembles without data-dependent branches, which processors mispredict half of the time.
 *
 * Many rows: trees of at most 64 leaves are scored as QuickScorer does (Lucchese et al., SIGIR 2015), with bytes (Ye et al.,
 * "RapidScorer", KDD 2018). The leaves of a tree are bits, from left to right. Each inner node whose comparison is true clears
 * the leaves of its left subtree; the lowest bit that remains is the leaf of the row. Leaves are in groups of 8, so that a
 * vector has a byte for each row, and a comparison appears once for each group that it clears a part of. quick_scorer.h does it.
 *
 * Numbers are compared as bytes too. The code of a value is the number of its column's thresholds that do not exceed it, so
 * value < threshold is the same as code < bound. Each 255 thresholds of a column have a code of their own.
 *
 * Few rows and larger trees: one step is  node = left + (value >= threshold).  The two children of a
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
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LANES = 16, ROWS = 256, WIDEST = 1 << 20 }; /* ROWS fit in the L1 or L2 cache while all trees visit them */
enum { MOST_LEAVES = 64, GROUP = 8, MOST_PARTS = 8, BATCH = 8, FEW_ROWS = 4 }; /* up to FEW_ROWS, rows are walked one by one */
enum { MOST_BOUNDS = 255 }; /* thresholds of a code */
enum { ALIGNMENT = 64 }; /* bytes of a cache line */
enum { N_ARRAYS = 7 };

typedef struct { float threshold; uint32_t feature, left; float weight; } Node;
typedef struct { uint16_t column; int8_t bound, remaining; } Test; /* remaining: the leaves of a group if code >= bound */
typedef struct { uint32_t feature, first, count; } Column; /* a feature, and its sorted thresholds */
typedef struct { uint32_t root, depth; } Tree;
typedef struct {
    uint32_t first_test, first_leaf, groups; /* groups is 0 if the tree has too many leaves */
    uint8_t tests[MOST_LEAVES / GROUP]; /* number of tests of each group; those of the last group come first */
} SmallTree; /* a tree that is scored; there is one for each tree */
typedef struct {
    const Node *nodes; const Tree *trees; const SmallTree *small; const Test *tests; const float *leaves;
    const Column *columns; const float *thresholds;
    Py_ssize_t count, n_columns, width; float base;
} Ensemble;
typedef struct { float *values; int8_t *codes; int has_values; } Buffers; /* of a block; values of all rows if a tree is walked */

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

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#define FIND_LEAVES find_leaves_avx512
#define INSTRUCTIONS AVX512
#define WIDTH 64
#include "quick_scorer.h"
#define FIND_LEAVES find_leaves_avx2
#define INSTRUCTIONS __attribute__((target("avx2")))
#define WIDTH 32
#include "quick_scorer.h"
#endif
#define FIND_LEAVES find_leaves_any
#define INSTRUCTIONS
#define WIDTH 16
#include "quick_scorer.h"

static Py_ssize_t count_codes(const Column *column)
{
    return (column->count + MOST_BOUNDS - 1) / MOST_BOUNDS;
}

/* Write how many of the thresholds do not exceed each value; all of them if it is missing and goes right. */
static void rank_lanes(const Column *column, const float *thresholds, const double *rows, Py_ssize_t width, int count, int32_t *ranks)
{
    const double *value = rows + column->feature % width;
    float values[LANES] = {0}, missing = column->feature < width ? INFINITY : -INFINITY;
    for (int lane = 0; lane < count; lane++, value += width)
        values[lane] = isnan(*value) ? missing : (float)*value;
    int32_t at[LANES] = {0};
    for (int32_t left = (int32_t)column->count, half; left > 1; left -= half) {
        half = left / 2;
        for (int lane = 0; lane < LANES; lane++)
            at[lane] += -(thresholds[at[lane] + half - 1] <= values[lane]) & half; /* a branch would be mispredicted */
    }
    for (int lane = 0; lane < LANES; lane++)
        ranks[lane] = at[lane] + (thresholds[at[lane]] <= values[lane]);
}

static void encode_rows(const Ensemble *all, const double *rows, int count, int8_t *codes)
{
    int32_t ranks[ROWS];
    for (const Column *column = all->columns; column < all->columns + all->n_columns; column++) {
        for (int row = 0; row < count; row += LANES)
            rank_lanes(column, all->thresholds + column->first, rows + row * all->width, all->width, Py_MIN(count - row, LANES), ranks + row);
        for (int32_t first = 0; first < (int32_t)column->count; first += MOST_BOUNDS, codes += ROWS)
            for (int row = 0; row < count; row++) {
                int32_t code = ranks[row] - first;
                codes[row] = (int8_t)((code < 0 ? 0 : code > MOST_BOUNDS ? MOST_BOUNDS : code) + INT8_MIN);
            }
    }
}

static int knows_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
    return 0;
#endif
}

static void find_leaves(const Ensemble *all, const SmallTree *tree, const int8_t *codes, int rows, uint8_t *leaves)
{
#if defined(__x86_64__)
    if (rows > 32 && knows_avx512()) /* a half empty vector is slower than a shorter one */
        return find_leaves_avx512(all, tree, codes, rows, leaves);
    if (__builtin_cpu_supports("avx2"))
        return find_leaves_avx2(all, tree, codes, rows, leaves);
#endif
    find_leaves_any(all, tree, codes, rows, leaves);
}

#if defined(__x86_64__)
/* Add the leaves of a tree to the sums of LANES rows at a time. The weights of all leaves fit into four registers. */
AVX512
static void add_leaves_avx512(const Ensemble *all, const SmallTree *tree, const uint8_t *leaves, int rows, float *sums)
{
    const float *weights = all->leaves + tree->first_leaf;
    __m512 first = _mm512_loadu_ps(weights), second = _mm512_loadu_ps(weights + LANES);
    __m512 third = _mm512_loadu_ps(weights + 2 * LANES), fourth = _mm512_loadu_ps(weights + 3 * LANES);
    for (int row = 0; row < rows; row += LANES) {
        __m512i leaf = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(leaves + row)));
        __m512 low = _mm512_permutex2var_ps(first, leaf, second), high = _mm512_permutex2var_ps(third, leaf, fourth);
        __mmask16 is_high = _mm512_test_epi32_mask(leaf, _mm512_set1_epi32(2 * LANES));
        _mm512_storeu_ps(sums + row, _mm512_add_ps(_mm512_loadu_ps(sums + row), _mm512_mask_blend_ps(is_high, low, high)));
    }
}
#endif

__attribute__((always_inline))
static inline void add_leaves_any(const Ensemble *all, const SmallTree *trees, const int count, uint8_t leaves[][ROWS], int rows, float *sums)
{
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int tree = 0; tree < count; tree++)
            sums[row] += all->leaves[trees[tree].first_leaf + leaves[tree][row]];
}

static void add_leaves(const Ensemble *all, const SmallTree *trees, int count, uint8_t leaves[][ROWS], int rows, float *sums)
{
#if defined(__x86_64__)
    if (knows_avx512()) {
        for (int tree = 0; tree < count; tree++)
            add_leaves_avx512(all, trees + tree, leaves[tree], rows, sums);
        return;
    }
#endif
    if (count == BATCH)
        add_leaves_any(all, trees, BATCH, leaves, rows, sums);
    else
        add_leaves_any(all, trees, count, leaves, rows, sums);
}

static void score_block(const Ensemble *all, const int8_t *codes, const float *values, int rows, float *sums)
{
    uint8_t leaves[BATCH][ROWS] __attribute__((aligned(ALIGNMENT)));
    for (Py_ssize_t tree = 0, count; tree < all->count; tree += count) {
        const SmallTree *first = all->small + tree;
        for (count = 0; count < BATCH && tree + count < all->count && first[count].groups; count++)
            find_leaves(all, first + count, codes, rows, leaves[count]);
        if (count)
            add_leaves(all, first, (int)count, leaves, rows, sums);
        else
            for (int row = count++; row < rows; row += LANES)
                walk_group(all, all->trees + tree, values + row * 2 * all->width, sums + row);
    }
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

static void walk_rows(const Ensemble *all, const double *rows, Py_ssize_t count, Buffers buffers, double *sums)
{
    while (count > FEW_ROWS) {
        int block = (int)Py_MIN(count, ROWS);
        float summed[ROWS] = {0};
        encode_rows(all, rows, block, buffers.codes); /* lanes without a row have any codes and values */
        for (int row = 0; buffers.has_values && row < block; row++)
            fill_lanes(rows + row * all->width, all->width, buffers.values + row / LANES * 2 * all->width * LANES + row % LANES, 1);
        score_block(all, buffers.codes, buffers.values, block, summed);
        for (int row = 0; row < block; row++)
            sums[row] = summed[row] + all->base;
        rows += block * all->width;
        sums += block;
        count -= block;
    }
    for (; count > 0; count--, rows += all->width)
        *sums++ = walk_row(all, rows, buffers.values);
}

/* Return memory for the buffers, which are aligned, or NULL. */
static char *allocate(const Ensemble *all, Py_ssize_t rows, Buffers *buffers)
{
    Py_ssize_t n_codes = 0;
    buffers->has_values = 0;
    for (const Column *column = all->columns; rows > FEW_ROWS && column < all->columns + all->n_columns; column++)
        n_codes += count_codes(column);
    for (const SmallTree *tree = all->small; rows > FEW_ROWS && tree < all->small + all->count; tree++)
        buffers->has_values |= !tree->groups;
    size_t values = sizeof(float) * 2 * all->width * (buffers->has_values ? ROWS : LANES);
    char *memory = PyMem_Malloc(values + n_codes * ROWS + ALIGNMENT);
    buffers->values = (float *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    buffers->codes = (int8_t *)buffers->values + values;
    return memory;
}

static int parse_arrays(PyObject *arrays, Ensemble *all)
{
    const void *data[N_ARRAYS];
    if (PyTuple_GET_SIZE(arrays) != N_ARRAYS) {
        PyErr_Format(PyExc_ValueError, "arrays must be %d bytes objects (got %zd).", N_ARRAYS, PyTuple_GET_SIZE(arrays));
        return 0;
    }
    for (int index = 0; index < N_ARRAYS; index++)
        if ((data[index] = PyBytes_AsString(PyTuple_GET_ITEM(arrays, index))) == NULL)
            return 0;
    all->nodes = data[0];
    all->trees = data[1];
    all->small = data[2];
    all->tests = data[3];
    all->leaves = data[4];
    all->columns = data[5];
    all->thresholds = data[6];
    all->count = PyBytes_GET_SIZE(PyTuple_GET_ITEM(arrays, 1)) / (Py_ssize_t)sizeof(Tree);
    all->n_columns = PyBytes_GET_SIZE(PyTuple_GET_ITEM(arrays, 5)) / (Py_ssize_t)sizeof(Column);
    return 1;
}

static PyObject *walk(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *arrays;
    Ensemble all;
    Py_buffer columns, sums;
    if (!PyArg_ParseTuple(args, "O!nfy*w*", &PyTuple_Type, &arrays, &all.width, &all.base, &columns, &sums))
        return NULL;
    Py_ssize_t rows = sums.len / (Py_ssize_t)sizeof(double);
    Py_ssize_t row = all.width > 0 && all.width < WIDEST ? all.width * (Py_ssize_t)sizeof(double) : 0; /* bytes */
    char *memory = NULL;
    Buffers buffers;
    if (row == 0 || columns.len % row || sums.len % sizeof(double) || columns.len / row != rows
        || ((uintptr_t)columns.buf | (uintptr_t)sums.buf) % sizeof(double))
        PyErr_Format(PyExc_ValueError, "columns and sums must be float64 of shape (rows, %zd) and (rows,) (got %zd and %zd bytes).",
                     all.width, columns.len, sums.len);
    else if (parse_arrays(arrays, &all) && (memory = allocate(&all, rows, &buffers)) == NULL)
        PyErr_NoMemory();
    else if (memory != NULL) {
        if (rows * all.count < 10000) /* about 100 us; releasing the interpreter lock can take longer than a row */
            walk_rows(&all, columns.buf, rows, buffers, sums.buf);
        else {
            Py_BEGIN_ALLOW_THREADS
            walk_rows(&all, columns.buf, rows, buffers, sums.buf);
            Py_END_ALLOW_THREADS
        }
    }
    PyMem_Free(memory);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&sums);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static int is_in_range(const Ensemble *all, const size_t *counts)
{
    int fits = all->width > 0 && all->width < WIDEST && counts[1] == counts[2];
    for (const Node *node = all->nodes, *end = node + counts[0]; fits && node < end; node++)
        fits = node->left + (size_t)!isnan(node->threshold) < counts[0] && node->feature < 2 * (size_t)all->width;
    for (const Tree *tree = all->trees, *end = tree + counts[1]; fits && tree < end; tree++)
        fits = tree->root < counts[0];
    size_t n_codes = 0;
    for (const Column *column = all->columns, *end = column + counts[5]; fits && column < end; column++) {
        fits = column->feature < 2 * (size_t)all->width && column->count > 0 && column->count <= INT32_MAX
            && (size_t)column->first + column->count <= counts[6];
        n_codes += count_codes(column);
    }
    for (const Test *test = all->tests, *end = test + counts[3]; fits && test < end; test++)
        fits = test->column < n_codes;
    for (const SmallTree *tree = all->small, *end = tree + counts[2]; fits && tree < end; tree++) {
        size_t last = tree->first_test;
        for (uint32_t group = 0; group < tree->groups && group < MOST_LEAVES / GROUP; group++)
            last += tree->tests[group];
        fits = tree->groups <= MOST_LEAVES / GROUP
            && (tree->groups == 0 || (last <= counts[3] && (size_t)tree->first_leaf + MOST_LEAVES <= counts[4]));
    }
    return fits;
}

static PyObject *check(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const size_t sizes[N_ARRAYS] = {
        sizeof(Node), sizeof(Tree), sizeof(SmallTree), sizeof(Test), sizeof(float), sizeof(Column), sizeof(float)
    };
    size_t counts[N_ARRAYS];
    PyObject *arrays;
    Ensemble all;
    if (!PyArg_ParseTuple(args, "O!n", &PyTuple_Type, &arrays, &all.width) || !parse_arrays(arrays, &all))
        return NULL;
    int fits = 1;
    for (int index = 0; index < N_ARRAYS; index++) {
        size_t size = PyBytes_GET_SIZE(PyTuple_GET_ITEM(arrays, index));
        fits = fits && size % sizes[index] == 0;
        counts[index] = size / sizes[index];
    }
    if (!fits || !is_in_range(&all, counts)) {
        PyErr_SetString(PyExc_ValueError, "A tree, node, child, test, leaf, threshold or column is out of range.");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"check", check, METH_VARARGS, "check(arrays, width): raise ValueError if a walk could read outside of the arrays."},
    {"walk", walk, METH_VARARGS, "walk(arrays, width, base, columns, sums): write the sums; the arrays must have passed check()."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef tree_walker = {PyModuleDef_HEAD_INIT, "tree_walker", "Evaluates tree ensembles.", -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tree_walker(void)
{
    return PyModule_Create(&tree_walker);
}
