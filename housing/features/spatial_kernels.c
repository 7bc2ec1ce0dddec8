/* Loops of the spatial features: search in a k-d tree, statistics of neighbours, distances to points and lines.
 *
 * Each function computes exactly what scipy or numpy compute, in the same order, so every bit of the results is equal. Equal
 * distances are frequent, because rows share locations. Therefore the search visits the nodes of scipy's tree in scipy's
 * order, and its heaps treat equal keys as scipy's heaps do. Compile without contraction to fused multiply-add.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

typedef struct { double split; int32_t axis; uint32_t first, second, unused; } Node; /* a leaf: axis -1, points first to second */
typedef struct { const Node *nodes; const double *points; const uint32_t *order; double low[2], high[2]; } Tree;
typedef struct { double *distances; uint32_t *points; } Heap;                     /* squared distances; two arrays, since a
   copy of 16 bytes waits for the 8 and 4 bytes that were written just before */
typedef struct { double distance, sides[2]; uint32_t node; } Cell;               /* squared distances to a node's box */
typedef struct { Cell *cells; Py_ssize_t count, space; } Queue;

/* Neighbours: a heap with the farthest at the root. */

static void place(Heap heap, Py_ssize_t at, double distance, uint32_t point)
{
    heap.distances[at] = distance;
    heap.points[at] = point;
}

static void push_neighbour(Heap heap, Py_ssize_t at, double distance, uint32_t point)
{
    for (Py_ssize_t parent; at > 0 && distance > heap.distances[parent = (at - 1) / 2]; at = parent)
        place(heap, at, heap.distances[parent], heap.points[parent]);
    place(heap, at, distance, point);
}

/* Remove the root of a heap that has `count` neighbours afterwards. Walk down to a leaf, then up: it mispredicts less. */
static void drop_farthest(Heap heap, Py_ssize_t count)
{
    double distance = heap.distances[count];
    uint32_t point = heap.points[count];
    Py_ssize_t at = 0;
    heap.distances[count] = -1; /* never the farther child */
    for (Py_ssize_t child; (child = 2 * at + 1) < count; at = child) {
        child += heap.distances[child + 1] > heap.distances[child];
        place(heap, at, heap.distances[child], heap.points[child]);
    }
    for (Py_ssize_t parent; at > 0 && heap.distances[parent = (at - 1) / 2] <= distance; at = parent)
        place(heap, at, heap.distances[parent], heap.points[parent]);
    place(heap, at, distance, point);
}

/* Cells: a heap with the nearest at the root. */

static int push_cell(Queue *queue, Cell new)
{
    if (queue->count == queue->space) {
        Py_ssize_t space = 2 * queue->space + 64;
        Cell *cells = realloc(queue->cells, (size_t)space * sizeof(Cell));
        if (cells == NULL)
            return 0;
        queue->cells = cells;
        queue->space = space;
    }
    Py_ssize_t at = queue->count++;
    for (Py_ssize_t parent; at > 0 && new.distance < queue->cells[parent = (at - 1) / 2].distance; at = parent)
        queue->cells[at] = queue->cells[parent];
    queue->cells[at] = new;
    return 1;
}

static Cell pop_cell(Queue *queue)
{
    Cell *cells = queue->cells, nearest = cells[0], last = cells[--queue->count];
    Py_ssize_t at = 0;
    for (Py_ssize_t child; (child = 2 * at + 1) < queue->count; at = child) {
        child += child + 1 < queue->count && cells[child].distance > cells[child + 1].distance;
        if (last.distance <= cells[child].distance)
            break;
        cells[at] = cells[child];
    }
    cells[at] = last;
    return nearest;
}

static void set_side(Cell *cell, int axis, double side)
{
    cell->distance += side - cell->sides[axis];
    cell->sides[axis] = side;
}

static Cell whole_tree(const Tree *tree, const double *query)
{
    Cell cell = {0, {0, 0}, 0};
    for (int axis = 0; axis < 2; axis++) {
        double side = fmax(0, fmax(tree->low[axis] - query[axis], query[axis] - tree->high[axis]));
        set_side(&cell, axis, side * side);
    }
    return cell;
}

/* Fill the heap with the `count` nearest points. Return whether there was memory for it. */
static int find_nearest(const Tree *tree, const double *query, Py_ssize_t count, Heap heap, Queue *queue)
{
    double bound = INFINITY;
    Py_ssize_t found = 0;
    Cell near = whole_tree(tree, query);
    for (queue->count = 0;;) {
        Node node = tree->nodes[near.node];
        if (node.axis < 0) {
            for (uint32_t point = node.first; point < node.second; point++) {
                double north = tree->points[2 * (size_t)point] - query[0], east = tree->points[2 * (size_t)point + 1] - query[1];
                double distance = north * north + east * east;
                if (distance >= bound)
                    continue;
                if (found == count)
                    drop_farthest(heap, --found);
                push_neighbour(heap, found++, distance, tree->order[point]);
                if (found == count)
                    bound = heap.distances[0];
            }
            if (queue->count == 0)
                return 1;
            near = pop_cell(queue);
        } else {
            if (near.distance > bound)
                return 1;
            Cell far = near;
            double side = query[node.axis] - node.split;
            near.node = side < 0 ? node.first : node.second;
            far.node = side < 0 ? node.second : node.first;
            set_side(&far, node.axis, side * side);
            if (near.distance > far.distance) { /* by rounding */
                Cell other = near;
                near = far;
                far = other;
            }
            if (far.distance <= bound && !push_cell(queue, far))
                return 0;
        }
    }
}

static PyObject *search(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer nodes, points, order, rows, distances, indices;
    Py_ssize_t width, north, east, count;
    double scale[2];
    Tree tree;
    if (!PyArg_ParseTuple(args, "y*y*y*ddddy*nnnddnw*w*", &nodes, &points, &order, &tree.low[0], &tree.low[1], &tree.high[0],
                          &tree.high[1], &rows, &width, &north, &east, &scale[0], &scale[1], &count, &distances, &indices))
        return NULL;
    tree.nodes = nodes.buf;
    tree.points = points.buf;
    tree.order = order.buf;
    Py_ssize_t n_rows = width > 0 ? rows.len / (width * (Py_ssize_t)sizeof(double)) : -1;
    Heap heap = {NULL, NULL};
    Queue queue = {NULL, 0, 0};
    int has_memory = 1;
    if (n_rows < 0 || north < 0 || north >= width || east < 0 || east >= width || count < 1
        || count > order.len / (Py_ssize_t)sizeof(uint32_t) || rows.len != n_rows * width * (Py_ssize_t)sizeof(double)
        || distances.len != n_rows * count * (Py_ssize_t)sizeof(double) || indices.len != distances.len)
        PyErr_SetString(PyExc_ValueError, "rows, distances and indices must have the shapes (rows, width), (rows, count) and (rows, count).");
    else if ((heap.distances = malloc((sizeof(double) + sizeof(uint32_t)) * (size_t)(count + 1))) == NULL)
        PyErr_NoMemory();
    else {
        heap.points = (uint32_t *)(heap.distances + count + 1);
        PyThreadState *state = n_rows * count < 1000 ? NULL : PyEval_SaveThread(); /* releasing the lock can take longer than a row */
        const double *row = rows.buf;
        double *distance = distances.buf;
        int64_t *index = indices.buf;
        for (; has_memory && n_rows > 0; n_rows--, row += width, distance += count, index += count) {
            double query[2] = {row[north] * scale[0], row[east] * scale[1]};
            if (!isfinite(query[0]) || !isfinite(query[1]))
                break;
            has_memory = find_nearest(&tree, query, count, heap, &queue);
            for (Py_ssize_t left = count; has_memory && left > 0; left--) {
                distance[left - 1] = sqrt(heap.distances[0]);
                index[left - 1] = heap.points[0];
                drop_farthest(heap, left - 1);
            }
        }
        if (state)
            PyEval_RestoreThread(state);
        if (!has_memory)
            PyErr_NoMemory();
        else if (n_rows > 0)
            PyErr_SetString(PyExc_ValueError, "Coordinates must be finite numbers.");
    }
    free(heap.distances);
    free(queue.cells);
    PyBuffer_Release(&nodes);
    PyBuffer_Release(&points);
    PyBuffer_Release(&order);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&distances);
    PyBuffer_Release(&indices);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Statistics of neighbours. `whole` and `real` hold the parameters of the block, see nearest_neighbours.py. */

typedef struct {
    Py_ssize_t count, columns, correlated, distances, means, target_means, target_stds, decays;
    const int64_t *column_of, *distance_ranks, *mean_counts, *target_mean_counts, *target_std_counts;
    double median, spread, similarity_km, colocated_km;
    const double *decay_km;
} Block;

static int read_block(Block *block, const Py_buffer *whole, const Py_buffer *real)
{
    const int64_t *numbers = whole->buf, *end = numbers + whole->len / sizeof(int64_t);
    Py_ssize_t *sizes[] = {&block->count, &block->columns, &block->correlated, &block->distances, &block->means,
                           &block->target_means, &block->target_stds, &block->decays};
    const int64_t **lists[] = {&block->column_of, &block->distance_ranks, &block->mean_counts, &block->target_mean_counts,
                               &block->target_std_counts};
    const Py_ssize_t *lengths[] = {&block->columns, &block->distances, &block->means, &block->target_means, &block->target_stds};
    if (end - numbers < 8)
        return 0;
    for (int i = 0; i < 8; i++) {
        if (numbers[i] < 0 || numbers[i] > INT32_MAX)
            return 0;
        *sizes[i] = (Py_ssize_t)numbers[i];
    }
    numbers += 8;
    for (int i = 0; i < 5; i++) {
        if (*lengths[i] > end - numbers)
            return 0;
        *lists[i] = numbers;
        for (const int64_t *stop = numbers + *lengths[i]; numbers < stop; numbers++)
            if (i > 0 && (*numbers < 1 || *numbers > block->count))
                return 0;
    }
    const double *values = real->buf;
    if (real->len != (4 + block->decays) * (Py_ssize_t)sizeof(double) || (block->columns > 0 && block->correlated >= block->columns))
        return 0;
    block->median = values[0];
    block->spread = values[1];
    block->similarity_km = values[2];
    block->colocated_km = values[3];
    block->decay_km = values + 4;
    return block->means > 0;
}

static Py_ssize_t names_of(const Block *block)
{
    return block->distances + (block->means + 1) * block->columns + block->target_means + block->target_stds + block->decays + 3;
}

/* Sum as numpy does over contiguous numbers: with eight partial sums, and by halves above 128 numbers. */
static double pairwise_sum(const double *values, Py_ssize_t count)
{
    if (count < 8) {
        double sum = -0.0;
        for (Py_ssize_t i = 0; i < count; i++)
            sum += values[i];
        return sum;
    }
    if (count > 128) {
        Py_ssize_t half = count / 2;
        half -= half % 8;
        return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
    }
    double sums[8];
    Py_ssize_t i;
    for (int lane = 0; lane < 8; lane++)
        sums[lane] = values[lane];
    for (i = 8; i < count - count % 8; i += 8)
        for (int lane = 0; lane < 8; lane++)
            sums[lane] += values[i + lane];
    double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < count; i++)
        sum += values[i];
    return sum;
}

/* numpy adds neighbour by neighbour, but pairwise if there is a single column. */
static void sum_columns(const Block *block, const double *stored, const int64_t *near, Py_ssize_t count, double *values, double *sums)
{
    Py_ssize_t columns = block->columns;
    if (columns == 1) {
        for (Py_ssize_t rank = 0; rank < count; rank++)
            values[rank] = stored[near[rank]];
        sums[0] = pairwise_sum(values, count);
        return;
    }
    for (Py_ssize_t column = 0; column < columns; column++)
        sums[column] = -0.0;
    for (Py_ssize_t rank = 0; rank < count; rank++) {
        const double *row = stored + near[rank] * columns;
        for (Py_ssize_t column = 0; column < columns; column++)
            sums[column] += row[column];
    }
}

static double *write_feature_means(const Block *block, const double *stored, const int64_t *near, const double *row, double *values,
                                   double *out)
{
    const double *first = out;
    for (Py_ssize_t mean = 0; mean < block->means; mean++, out += block->columns) {
        sum_columns(block, stored, near, block->mean_counts[mean], values, out);
        for (Py_ssize_t column = 0; column < block->columns; column++)
            out[column] /= (double)block->mean_counts[mean];
    }
    for (Py_ssize_t column = 0; column < block->columns; column++)
        *out++ = row[block->column_of[column]] - first[column];
    return out;
}

/* `sums` are the running sums of targets, and of their squares behind `count` numbers. */
static double *write_target_means(const Block *block, const double *sums, double *out)
{
    for (Py_ssize_t i = 0; i < block->target_means; i++)
        *out++ = sums[block->target_mean_counts[i] - 1] / (double)block->target_mean_counts[i];
    for (Py_ssize_t i = 0; i < block->target_stds; i++) {
        double count = (double)block->target_std_counts[i], mean = sums[block->target_std_counts[i] - 1] / count;
        double variance = sums[block->count + block->target_std_counts[i] - 1] / count - mean * mean;
        *out++ = sqrt(variance < 0 ? 0 : variance);
    }
    return out;
}

/* The exponents of the weights, first by distance alone, then by similarity as well. */
static void write_exponents(const Block *block, const double *distances, const double *stored, const int64_t *near, const double *row,
                            double *exponents)
{
    Py_ssize_t count = block->count;
    for (Py_ssize_t decay = 0; decay < block->decays; decay++, exponents += count)
        for (Py_ssize_t rank = 0; rank < count; rank++)
            exponents[rank] = -(distances[rank] / block->decay_km[decay]);
    double own = block->columns > 0 ? row[block->column_of[block->correlated]] : 0;
    own = isnan(own) ? block->median : own;
    for (Py_ssize_t rank = 0; rank < count; rank++) {
        double difference = block->columns > 0 ? fabs(stored[near[rank] * block->columns + block->correlated] - own) / block->spread : 0;
        exponents[rank] = -(distances[rank] / block->similarity_km + difference);
    }
}

static int is_in_range(const int64_t *near, Py_ssize_t count, Py_ssize_t known)
{
    int is_valid = 1;
    for (Py_ssize_t rank = 0; rank < count; rank++)
        is_valid &= near[rank] >= 0 && near[rank] < known;
    return is_valid;
}

static PyObject *summarise(PyObject *Py_UNUSED(module), PyObject *args)
{
    enum { WHOLE, REAL, DISTANCES, NEAR, ROWS, STORED, TARGETS, OUT, NEAR_TARGETS, EXPONENTS, COLOCATED, BUFFERS };
    Py_buffer buffers[BUFFERS];
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*ny*y*w*w*w*w*", &buffers[WHOLE], &buffers[REAL], &buffers[DISTANCES], &buffers[NEAR],
                          &buffers[ROWS], &width, &buffers[STORED], &buffers[TARGETS], &buffers[OUT], &buffers[NEAR_TARGETS],
                          &buffers[EXPONENTS], &buffers[COLOCATED]))
        return NULL;
    Block block;
    const Py_ssize_t size = sizeof(double);
    int fits = read_block(&block, &buffers[WHOLE], &buffers[REAL]) && width > 0 && block.count > 0;
    Py_ssize_t rows = fits ? buffers[ROWS].len / (width * size) : 0, known = buffers[TARGETS].len / size;
    fits = fits && buffers[ROWS].len == rows * width * size && buffers[DISTANCES].len == rows * block.count * size
        && buffers[NEAR].len == buffers[DISTANCES].len && buffers[NEAR_TARGETS].len == buffers[DISTANCES].len
        && buffers[COLOCATED].len == buffers[DISTANCES].len && buffers[EXPONENTS].len == buffers[DISTANCES].len * (block.decays + 1)
        && buffers[STORED].len == known * block.columns * size && buffers[OUT].len == rows * names_of(&block) * size
        && is_in_range(buffers[NEAR].buf, rows * block.count, known);
    for (Py_ssize_t column = 0; fits && column < block.columns; column++)
        fits = block.column_of[column] >= 0 && block.column_of[column] < width;
    double *sums = NULL;
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "An index or the length of an array is out of range.");
    else if ((sums = PyMem_Malloc((size_t)(2 * block.count * size))) == NULL)
        PyErr_NoMemory();
    const double *distances = buffers[DISTANCES].buf, *row = buffers[ROWS].buf, *stored = buffers[STORED].buf, *targets = buffers[TARGETS].buf;
    const int64_t *near = buffers[NEAR].buf;
    double *out = buffers[OUT].buf, *near_targets = buffers[NEAR_TARGETS].buf, *exponents = buffers[EXPONENTS].buf, *colocated = buffers[COLOCATED].buf;
    for (; sums && rows > 0; rows--, row += width) {
        for (Py_ssize_t i = 0; i < block.distances; i++)
            *out++ = distances[block.distance_ranks[i] - 1];
        out = write_feature_means(&block, stored, near, row, sums, out);
        double sum = -0.0, squares = -0.0, n_colocated = 0;
        for (Py_ssize_t rank = 0; rank < block.count; rank++) {
            double target = near_targets[rank] = targets[near[rank]];
            sums[rank] = sum += target;
            sums[block.count + rank] = squares += target * target;
            n_colocated += colocated[rank] = distances[rank] < block.colocated_km;
        }
        out = write_target_means(&block, sums, out) + block.decays + 2; /* finish() writes those */
        *out++ = n_colocated;
        write_exponents(&block, distances, stored, near, row, exponents);
        distances += block.count;
        near += block.count;
        near_targets += block.count;
        colocated += block.count;
        exponents += block.count * (block.decays + 1);
    }
    PyMem_Free(sums);
    for (int i = 0; i < BUFFERS; i++)
        PyBuffer_Release(&buffers[i]);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *finish(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer weights, weighted, colocated, out;
    Py_ssize_t count, means, width;
    if (!PyArg_ParseTuple(args, "y*y*y*w*nnn", &weights, &weighted, &colocated, &out, &count, &means, &width))
        return NULL;
    Py_ssize_t rows = colocated.len / (Py_ssize_t)sizeof(double);
    const double *weight = weights.buf, *sum = weighted.buf, *colocated_sum = colocated.buf;
    double *first = out.buf;
    if (count < 1 || means < 1 || width < means + 2 || weights.len != colocated.len * count * means || weighted.len != colocated.len * means
        || out.len != colocated.len * width)
        PyErr_SetString(PyExc_ValueError, "The length of an array is out of range.");
    else
        for (Py_ssize_t row = 0; row < rows; row++) {
            double *end = first + (row + 1) * width, *at = end - 2 - means;
            for (Py_ssize_t mean = 0; mean < means; mean++, weight += count)
                *at++ = *sum++ / pairwise_sum(weight, count);
            *at = end[-1] > 0 ? colocated_sum[row] / end[-1] : NAN;
        }
    PyBuffer_Release(&weights);
    PyBuffer_Release(&weighted);
    PyBuffer_Release(&colocated);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Distances to points and lines. A line is five arrays: north and east of the start of each segment, its steps, their squares. */

static double distance_to_line(const double *line, Py_ssize_t segments, double north, double east, double *squares)
{
    const double *norths = line, *easts = line + segments, *step_norths = line + 2 * segments, *step_easts = line + 3 * segments;
    const double *lengths = line + 4 * segments;
    for (Py_ssize_t i = 0; i < segments; i++) {
        double away_north = north - norths[i], away_east = east - easts[i];
        double along = (away_north * step_norths[i] + away_east * step_easts[i]) / lengths[i];
        along = along < 0.0 ? 0.0 : along; /* both keep NaN, as numpy does */
        along = along > 1.0 ? 1.0 : along;
        away_north -= along * step_norths[i];
        away_east -= along * step_easts[i];
        squares[i] = away_north * away_north + away_east * away_east;
    }
    double least = squares[0];
    for (Py_ssize_t i = 1; i < segments; i++)
        least = squares[i] < least || isnan(squares[i]) ? squares[i] : least;
    return sqrt(least);
}

static PyObject *landmarks(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer rows, points, lines, segments, out;
    Py_ssize_t width, north, east;
    double scale[2];
    if (!PyArg_ParseTuple(args, "y*nnnddy*y*y*w*", &rows, &width, &north, &east, &scale[0], &scale[1], &points, &lines, &segments, &out))
        return NULL;
    Py_ssize_t n_lines = segments.len / (Py_ssize_t)sizeof(int64_t), n_points = points.len / (Py_ssize_t)(2 * sizeof(double));
    Py_ssize_t names = n_points + (n_points > 0) + n_lines, longest = 0, total = 0;
    const int64_t *lengths = segments.buf;
    for (Py_ssize_t line = 0; line < n_lines; line++) {
        longest = Py_MAX(longest, (Py_ssize_t)lengths[line]);
        total += lengths[line] > 0 ? (Py_ssize_t)lengths[line] : INT32_MAX;
    }
    Py_ssize_t n_rows = width > 0 ? rows.len / (width * (Py_ssize_t)sizeof(double)) : -1;
    double *squares = NULL;
    if (n_rows < 0 || north < 0 || north >= width || east < 0 || east >= width || lines.len != total * 5 * (Py_ssize_t)sizeof(double)
        || rows.len != n_rows * width * (Py_ssize_t)sizeof(double) || out.len != n_rows * names * (Py_ssize_t)sizeof(double))
        PyErr_SetString(PyExc_ValueError, "An index or the length of an array is out of range.");
    else if ((squares = PyMem_Malloc(sizeof(double) * (size_t)(longest + 1))) == NULL)
        PyErr_NoMemory();
    const double *row = rows.buf, *point = points.buf;
    double *at = out.buf;
    for (; squares && n_rows > 0; n_rows--, row += width) {
        double query[2] = {row[north] * scale[0], row[east] * scale[1]}, least = INFINITY;
        for (Py_ssize_t i = 0; i < n_points; i++) {
            double distance = *at++ = hypot(query[0] - point[2 * i], query[1] - point[2 * i + 1]);
            least = distance < least || isnan(distance) ? distance : least;
        }
        if (n_points > 0)
            *at++ = least;
        const double *line = lines.buf;
        for (Py_ssize_t i = 0; i < n_lines; line += 5 * lengths[i++])
            *at++ = distance_to_line(line, (Py_ssize_t)lengths[i], query[0], query[1], squares);
    }
    PyMem_Free(squares);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&points);
    PyBuffer_Release(&lines);
    PyBuffer_Release(&segments);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"search", search, METH_VARARGS, "search(nodes, points, order, south, west, north, east, rows, width, latitude, longitude, km north, km east,"
                                     " count, distances, indices): write the nearest points of each row."},
    {"summarise", summarise, METH_VARARGS, "summarise(whole numbers, numbers, distances, indices, rows, width, columns, targets, out, near targets,"
                                           " exponents, colocated): write the statistics of neighbours, and the input of finish()."},
    {"finish", finish, METH_VARARGS, "finish(weights, weighted sums, colocated sums, out, count, means, width): write the weighted means."},
    {"landmarks", landmarks, METH_VARARGS, "landmarks(rows, width, latitude, longitude, km north, km east, points, lines, segments of each line, out):"
                                           " write the distances to points, to the nearest point and to lines."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef spatial_kernels = {PyModuleDef_HEAD_INIT, "spatial_kernels", "Loops of the spatial features.", -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_spatial_kernels(void)
{
    PyObject *module = PyModule_Create(&spatial_kernels);
    if (module && PyModule_AddIntConstant(module, "INTERFACE", 2) < 0) /* see compiled.py */
        Py_CLEAR(module);
    return module;
}
