/* Part of kernels.c: 3 x 3 convolution, stride 1, "same" padding, and its weight's gradient, as Winograd has it
   (Lavin and Gray 2016, arXiv:1509.09308): a tile of 4 x 4 pixels of the output, from 6 x 6 of the input, is
   A^T ((G w G^T) . (B^T x B)) A, which takes 36 products a pair of channels and not 144. Its points are
   0, +-sqrt(1/2), +-sqrt(2) and infinity, whose rounding is a third of that of the usual 0, +-1, +-2.

   For each of the 36 places of the tiles in a strip the products are those of two matrices. */

/* What the points of both signs give: even and odd part of the nearer ones, p and q, and of the others. */
INLINE void mirror(Piece *y, Piece p, Piece q, Piece r, Piece s) {
    y[1] = p + q;
    y[2] = p - q;
    y[3] = r + s;
    y[4] = r - s;
}

/* y = B^T x, of 6 */
INLINE void by_bt(Piece *y, const Piece *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    Piece p = x[4] - 2 * x[2], q = a * (x[3] - 2 * x[1]);
    Piece r = x[4] - (REAL)0.5 * x[2], s = b * (x[3] - (REAL)0.5 * x[1]);
    y[0] = x[0] - (REAL)2.5 * x[2] + x[4];
    y[5] = x[1] - (REAL)2.5 * x[3] + x[5];
    mirror(y, p, q, r, s);
}

/* y = A^T x: 4 of 6 */
INLINE void by_at(Piece *y, const Piece *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    Piece p = x[1] + x[2], q = a * (x[1] - x[2]), r = x[3] + x[4], s = b * (x[3] - x[4]);
    y[0] = x[0] + p + r;
    y[1] = q + s;
    y[2] = (REAL)0.5 * p + 2 * r;
    y[3] = (REAL)0.5 * q + 2 * s + x[5];
}

/* y = A x: 6 of 4 */
INLINE void by_a(Piece *y, const Piece *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    Piece p = x[0] + (REAL)0.5 * x[2], q = a * (x[1] + (REAL)0.5 * x[3]);
    Piece r = x[0] + 2 * x[2], s = b * (x[1] + 2 * x[3]);
    y[0] = x[0];
    y[5] = x[3];
    mirror(y, p, q, r, s);
}

/* y = G x: 6 of 3 */
INLINE void by_g(Piece *y, const Piece *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2, m = -2. / 3, n = 1. / 6;
    Piece p = m * (x[0] + (REAL)0.5 * x[2]), q = m * a * x[1], r = n * (x[0] + 2 * x[2]), s = n * b * x[1];
    y[0] = x[0];
    y[5] = x[2];
    mirror(y, p, q, r, s);
}

/* y = G^T x: 3 of 6 */
INLINE void by_gt(Piece *y, const Piece *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2, m = -2. / 3, n = 1. / 6;
    Piece p = m * (x[1] + x[2]), q = m * (x[1] - x[2]), r = n * (x[3] + x[4]), s = n * (x[3] - x[4]);
    y[0] = x[0] + p + r;
    y[1] = a * q + b * s;
    y[2] = (REAL)0.5 * p + 2 * r + x[5];
}

/* Both sides of a square: y[k][r], of `to` each, of x[k][r], of `from` each. */
#define BOTH(transform, from, to, y, x)                                                                                \
    do {                                                                                                               \
        Piece half[from][to], line[from];                                                                              \
        for (int k = 0; k < from; k++) transform(half[k], x[k]);                                                       \
        for (int r = 0; r < to; r++) {                                                                                 \
            for (int k = 0; k < from; k++) line[k] = half[k][r];                                                       \
            transform(y[r], line);                                                                                     \
        }                                                                                                              \
    } while (0)

/* `rows` of an image from y on, or of its ReLU, with zeros where there is none: `pad` pixels to the left of it, and what
   is right of it in the frame stays. */
static void cut(REAL *frame, const REAL *image, int64_t y, int rows, int64_t h, int64_t w, int64_t line, int pad, int c,
                int relu) {
    for (int r = 0; r < rows; r++)
        if (y + r < 0 || y + r >= h) memset(frame + r * line, 0, line * sizeof(REAL));
        else copy(frame + r * line + pad * c, image + (y + r) * w * c, w * c, relu);
}

/* The tiles of a frame, transformed: v[place][tile][channel]. What two neighbours share is transformed once. */
static void transform_input(REAL *restrict v, int64_t place, const REAL *restrict frame, int64_t line, int64_t tiles,
                            int c) {
    for (int j = 0; j < c; j += PIECE) {
        Piece columns[6][6], x[6], z[6];
        for (int64_t t = 0; t < tiles; t++) {
            const REAL *at = frame + 4 * t * c + j;
            for (int k = t ? 2 : 0; k < 6; k++) {
                for (int r = 0; r < 6; r++) x[r] = AT(at + r * line + k * c);
                by_bt(columns[k], x);
            }
            for (int r = 0; r < 6; r++) {
                for (int k = 0; k < 6; k++) x[k] = columns[k][r];
                by_bt(z, x);
                for (int k = 0; k < 6; k++) AT(v + (r * 6 + k) * place + t * c + j) = z[k];
                columns[0][r] = columns[4][r];
                columns[1][r] = columns[5][r];
            }
        }
    }
}

/* The same of a gradient of the output. */
static void transform_output(REAL *restrict v, int64_t place, const REAL *restrict frame, int64_t line, int64_t tiles,
                             int c) {
    for (int64_t t = 0; t < tiles; t++)
        for (int j = 0; j < c; j += PIECE) {
            Piece x[4][4], z[6][6];
            for (int k = 0; k < 4; k++)
                for (int r = 0; r < 4; r++) x[k][r] = AT(frame + r * line + (4 * t + k) * c + j);
            BOTH(by_a, 4, 6, z, x);
            for (int r = 0; r < 6; r++)
                for (int k = 0; k < 6; k++) AT(v + (r * 6 + k) * place + t * c + j) = z[r][k];
        }
}

/* Tiles of the output, from m[place][tile][channel]; h rows of w pixels, the last tile may reach beyond them. Where
   the map `of`, if any, is not positive the output is zero. */
static void put(REAL *restrict y, const REAL *restrict of, const REAL *restrict m, int64_t place, int64_t h, int64_t w,
                int64_t tiles, int c) {
    for (int64_t t = 0; t < tiles; t++)
        for (int j = 0; j < c; j += PIECE) {
            Piece x[6][6], z[4][4];
            for (int k = 0; k < 6; k++)
                for (int r = 0; r < 6; r++) x[k][r] = AT(m + (r * 6 + k) * place + t * c + j);
            BOTH(by_at, 6, 4, z, x);
            const int64_t at = 4 * t * c + j, down = h < 4 ? h : 4, right = w - 4 * t < 4 ? w - 4 * t : 4;
            for (int r = 0; r < down; r++)
                for (int k = 0; k < right; k++) {
                    const int64_t to = at + (r * w + k) * c;
                    AT(y + to) = of ? where_positive(AT(of + to), z[r][k]) : z[r][k];
                }
        }
}

/* How a thread works through tiles: a strip of some rows of them at a time. */
typedef struct {
    int64_t across, rows; /* tiles in a row of an image, rows of all images */
    int64_t strip, tiles; /* rows, and tiles with those that fill a block */
    int64_t of_in, of_out; /* numbers of a place of the input's and the output's tiles */
    int64_t matrix, matrices; /* of a place of the weight's, and of all */
    int64_t line_in, line_out; /* of a frame */
    int64_t zeros, size; /* of a thread's frames, and of all that it needs: a multiple of LINE */
} Plan;

static Plan plan(int64_t images, int64_t h, int64_t w, int c_in, int c_out) {
    Plan p = {.across = (w + 3) / 4, .rows = images * ((h + 3) / 4)};
    p.strip = TILES / p.across;
    if (p.strip < 1) p.strip = 1;
    p.tiles = (p.strip * p.across + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
    p.of_in = p.tiles * c_in + LINE; /* not a power of two: places would share their part of the cache */
    p.of_out = p.tiles * c_out + LINE;
    p.matrix = (int64_t)c_in * c_out + LINE;
    p.matrices = 36 * p.matrix;
    p.line_in = (4 * p.across + 2) * c_in;
    p.line_out = 4 * p.across * c_out;
    p.zeros = 6 * p.line_in + 4 * p.line_out;
    p.size = (p.zeros + 36 * (p.of_in + p.of_out) + LINE - 1) / LINE * LINE;
    return p;
}

/* Each thread's frames of the input and of the output, all zero; then its tiles. */
#define BEGIN_TILES                                                                                                    \
    BEGIN                                                                                                              \
    REAL *in = all + i * p.size;                                                                                       \
    REAL *v = in + p.zeros, *m = v + 36 * p.of_in;                                                                     \
    memset(in, 0, p.zeros * sizeof *in);

/* The input of a strip of rows from r on, transformed. */
#define OF_A_STRIP                                                                                                     \
    int64_t some = to - r < p.strip ? to - r : p.strip, down = (h + 3) / 4;                                            \
    for (int64_t k = 0; k < some; k++) {                                                                               \
        cut(in, x + (r + k) / down * h * w * c_in, (r + k) % down * 4 - 1, 6, h, w, p.line_in, 1, c_in, relu);         \
        transform_input(v + k * p.across * c_in, p.of_in, in, p.line_in, p.across, c_in);                              \
    }

/* y, of images of h x w; see conv1x1. */
int conv3x3(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
            const REAL *weight, const REAL *of, REAL *y) {
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
                BOTH(by_g, 3, 6, z, taps);
                for (int t = 0; t < 36; t++) AT(u + t * p.matrix + in_panels(k, j, c_in, c_out)) = z[t / 6][t % 6];
            }
        for (int64_t r = from; r < to; r += p.strip) {
            OF_A_STRIP
            for (int t = 0; t < 36; t++)
                multiply(m + t * p.of_out, v + t * p.of_in, u + t * p.matrix, some * p.across, c_in, c_out);
            for (int64_t k = 0; k < some; k++) {
                int64_t top = (r + k) % down * 4;
                int64_t to = ((r + k) / down * h + top) * w * c_out;
                put(y + to, of ? of + to : 0, m + k * p.across * c_out, p.of_out, h - top, w, p.across, c_out);
            }
        }
    }
    free(all);
    free(u);
    return 1;
}

/* of_weight, from g, the gradient of the output. */
int conv3x3_of_weight(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
                      const REAL *g, REAL *of_weight) {
    const int most = omp_get_max_threads();
    const Plan p = plan(images, h, w, c_in, c_out);
    const int64_t rows = p.rows;
    REAL *all = aligned_alloc(64, most * p.size * sizeof *all);
    REAL *sums = aligned_alloc(64, most * p.matrices * sizeof *sums);
    if (!all || !sums) return free(all), free(sums), 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN_TILES
        REAL *out = in + 6 * p.line_in, *own = sums + i * p.matrices;
        memset(own, 0, p.matrices * sizeof *own);
        for (int64_t r = from; r < to; r += p.strip) {
            OF_A_STRIP
            for (int64_t k = 0; k < some; k++) {
                cut(out, g + (r + k) / down * h * w * c_out, (r + k) % down * 4, 4, h, w, p.line_out, 0, c_out, 0);
                transform_output(m + k * p.across * c_out, p.of_out, out, p.line_out, p.across, c_out);
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
                BOTH(by_gt, 6, 3, taps, z);
                for (int t = 0; t < 9; t++)
                    for (int e = 0; e < PIECE; e++) of_weight[WEIGHT_AT(t, k, j + e)] = taps[t / 3][t % 3][e];
            }
    }
    free(all);
    free(sums);
    return 1;
}
