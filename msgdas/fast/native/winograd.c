/* Part of kernels.c: 3 x 3 convolution with stride 1 and "same" padding, and its weight's gradient, by Winograd's
   algorithm (Lavin and Gray 2016, arXiv:1509.09308): a tile of 4 x 4 pixels of the output, from 6 x 6 of the input, is
   A^T ((G w G^T) . (B^T x B)) A, which takes 36 products per pair of channels instead of 144. Its points are 0,
   +-sqrt(1/2), +-sqrt(2) and infinity, whose rounding errors are a third of those of the usual 0, +-1, +-2.

   For each of the 36 places of the tiles in a strip, the products are one product of two matrices. */

#define T Vector
#define NAME(f) wide_##f
#include "tiles.c"
#define T Piece
#define NAME(f) narrow_##f
#include "tiles.c"

/* f on all channels: in Vectors, and Pieces for the rest. */
#define OF_ALL(f, c, ...)                                                                                              \
    do {                                                                                                               \
        wide_##f(__VA_ARGS__, 0, c / VECTOR * VECTOR, c);                                                              \
        narrow_##f(__VA_ARGS__, c / VECTOR * VECTOR, c, c);                                                            \
    } while (0)

/* The first line of row r of tiles, counted over all images of h lines. */
INLINE int64_t first_line(int64_t r, int64_t h) {
    const int64_t down = (h + 3) / 4;
    return r / down * h + r % down * 4;
}

/* Prefetch `numbers` of a map to be read, if any, and of one to be written. */
static void fetch(const REAL *of, REAL *y, int64_t numbers) {
    for (int64_t j = 0; j < numbers; j += LINE) {
        if (of) __builtin_prefetch(of + j, 0, 2);
        __builtin_prefetch(y + j, 1, 2);
    }
}

/* Sizes of a thread's work: it takes a strip of some rows of tiles at a time. */
typedef struct {
    int64_t across, rows; /* tiles in a row of an image, rows of all images */
    int64_t strip, tiles; /* rows per strip; tiles, rounded up to fill blocks */
    int64_t of_in, of_out; /* numbers per place (of 36) of the input's and output's tiles */
    int64_t matrix, matrices; /* the same of the weight, and of all places */
    int64_t line_in, line_out; /* numbers per line of the frames */
    int64_t zeros, size; /* numbers of a thread's frames, and of all it needs: a multiple of LINE */
} Plan;

static Plan plan(int64_t images, int64_t h, int64_t w, int c_in, int c_out) {
    Plan p = {.across = (w + 3) / 4, .rows = images * ((h + 3) / 4)};
    p.strip = TILES / p.across;
    if (p.strip < 1) p.strip = 1;
    p.tiles = (p.strip * p.across + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
    p.of_in = p.tiles * c_in + LINE; /* not a power of two, or places would compete for the same cache lines */
    p.of_out = p.tiles * c_out + LINE;
    p.matrix = (int64_t)c_in * c_out + LINE;
    p.matrices = 36 * p.matrix;
    p.line_in = (4 * p.across + 2) * c_in;
    p.line_out = 4 * p.across * c_out;
    p.zeros = 6 * p.line_in + 4 * p.line_out;
    p.size = (p.zeros + 36 * (p.of_in + p.of_out) + LINE - 1) / LINE * LINE;
    return p;
}

/* Each thread's memory: frames of the input and output, all zero, then its tiles. */
#define BEGIN_TILES                                                                                                    \
    BEGIN                                                                                                              \
    REAL *frame = all + i * p.size;                                                                                    \
    REAL *v = frame + p.zeros, *m = v + 36 * p.of_in;                                                                  \
    memset(frame, 0, p.zeros * sizeof *frame);

/* Transform the input of a strip of rows from r on. */
#define OF_A_STRIP                                                                                                     \
    int64_t some = to - r < p.strip ? to - r : p.strip, down = (h + 3) / 4;                                            \
    for (int64_t k = 0; k < some; k++) {                                                                               \
        cut(frame, &in, (r + k) / down, (r + k) % down * 4 - 1, 6, h, w, p.line_in, 1, c_in);                          \
        OF_ALL(transform_input, c_in, v + k * p.across * c_in, p.of_in, frame, p.line_in, p.across);                   \
    }

/* y = the convolution of images of h x w; arguments as in conv1x1. */
int conv3x3(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
            const REAL *term, const REAL *factors, const REAL *weight, const REAL *of, REAL *y) {
    const Input in = {x, term, factors, relu, row(c_in)};
    const int most = omp_get_max_threads();
    const Plan p = plan(images, h, w, c_in, c_out);
    const int64_t rows = p.rows;
    REAL *all = aligned_alloc(64, most * p.size * sizeof *all), *u = aligned_alloc(64, p.matrices * sizeof *u);
    if (!all || !u) return free(all), free(u), 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN_TILES
#pragma omp for schedule(static)
        for (int k = 0; k < c_in; k++)
            for (int j = 0; j < c_out; j += PIECE) {
                Piece taps[3][3], z[6][6];
                for (int t = 0; t < 9; t++)
                    for (int e = 0; e < PIECE; e++) taps[t % 3][t / 3][e] = weight[WEIGHT_AT(t, k, j + e)];
                narrow_transform_weight(z, taps);
                for (int t = 0; t < 36; t++) AT(u + t * p.matrix + in_panels(k, j, c_in, c_out)) = z[t / 6][t % 6];
            }
        for (int64_t r = from; r < to; r += p.strip) {
            OF_A_STRIP
            for (int64_t k = 0; k < some; k++) { /* the products leave the memory idle, and put will wait for it */
                const int64_t first = first_line(r + k, h), left = h - first % h, at = first * w * c_out;
                fetch(of ? of + at : 0, y + at, (left < 4 ? left : 4) * w * c_out);
            }
            for (int t = 0; t < 36; t++)
                multiply(m + t * p.of_out, v + t * p.of_in, u + t * p.matrix, some * p.across, c_in, c_out);
            for (int64_t k = 0; k < some; k++) {
                const int64_t first = first_line(r + k, h), left = h - first % h, at = first * w * c_out;
                OF_ALL(put, c_out, y + at, of ? of + at : 0, m + k * p.across * c_out, p.of_out, left, w, p.across);
            }
        }
    }
    free(all);
    free(u);
    return 1;
}

/* of_weight = the weight's gradient, from g, the gradient of the output. */
int conv3x3_of_weight(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
                      const REAL *g, REAL *of_weight) {
    const Input in = {.x = x, .relu = relu}, gradient = {.x = g};
    const int most = omp_get_max_threads();
    const Plan p = plan(images, h, w, c_in, c_out);
    const int64_t rows = p.rows;
    REAL *all = aligned_alloc(64, most * p.size * sizeof *all);
    REAL *sums = aligned_alloc(64, most * p.matrices * sizeof *sums);
    if (!all || !sums) return free(all), free(sums), 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN_TILES
        REAL *out = frame + 6 * p.line_in, *own = sums + i * p.matrices;
        memset(own, 0, p.matrices * sizeof *own);
        for (int64_t r = from; r < to; r += p.strip) {
            OF_A_STRIP
            for (int64_t k = 0; k < some; k++) {
                cut(out, &gradient, (r + k) / down, (r + k) % down * 4, 4, h, w, p.line_out, 0, c_out);
                OF_ALL(transform_output, c_out, m + k * p.across * c_out, p.of_out, out, p.line_out, p.across);
            }
            for (int t = 0; t < 36; t++)
                accumulate(own + t * p.matrix, v + t * p.of_in, m + t * p.of_out, some * p.across, c_in, c_out);
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int k = 0; k < c_in; k++)
            for (int j = 0; j < c_out; j += PIECE) {
                Piece z[6][6] = {0}, taps[3][3];
                for (int t = 0; t < 36; t++)
                    for (int o = 0; o < threads; o++)
                        z[t % 6][t / 6] += AT(sums + o * p.matrices + t * p.matrix + in_panels(k, j, c_in, c_out));
                narrow_transform_back(taps, z);
                for (int t = 0; t < 9; t++)
                    for (int e = 0; e < PIECE; e++) of_weight[WEIGHT_AT(t, k, j + e)] = taps[t / 3][t % 3][e];
            }
    }
    free(all);
    free(sums);
    return 1;
}
