/* Part of kernels.c: products of matrices with few columns, and 1 x 1 convolution by them. Channels are multiples of
   8. */

#define PIECE (int)(32 / sizeof(REAL))
typedef REAL Piece __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));

/* The block of a product that is kept in registers: ROWS_OUT or ROWS_IN rows of two Vectors, or BLOCK_ROWS rows of
   one Vector or Piece. */
#define WIDE (2 * VECTOR)
#define ROWS_OUT (BYTES == 64 ? 12 : 6)
#define ROWS_IN (BYTES == 64 ? 8 : 4)
#define BLOCK_ROWS 12 /* a multiple of ROWS_OUT */
#define OUTER_ROWS 8 /* of ROWS_IN */
#define PIXELS (BYTES == 64 ? 8 : 6) /* as many addresses as the registers hold besides */
#define LINE (int)(64 / sizeof(REAL)) /* numbers of a cache line */
#define INLINE static inline __attribute__((always_inline))
#define AT(address) (*(Piece *)(address))

/* The matrix u of a product is stored in panels, so that what a block reads is contiguous: WIDE columns, row after
   row, then the next WIDE; what is left in panels of VECTOR and then of PIECE columns. Returns where row k, column j
   is. */
INLINE int64_t in_panels(int64_t k, int64_t j, int64_t rows, int64_t columns) {
    const int64_t width = j < columns / WIDE * WIDE ? WIDE : j < columns / VECTOR * VECTOR ? VECTOR : PIECE;
    const int64_t begin = j / width * width;
    return begin * rows + k * width + j - begin;
}

/* A block of m = v u, and of u += v^T m, with n registers per row. v is rows x c_in, m is rows x c_out, u a panel. */
#define PRODUCTS(name, T, n, rows_out, rows_in)                                                                        \
    INLINE void name##_product(REAL *restrict m, const REAL *restrict v, const REAL *restrict u, int c_in,             \
                               int c_out) {                                                                            \
        T s[rows_out][n];                                                                                              \
        for (int t = 0; t < rows_out; t++)                                                                             \
            for (int i = 0; i < n; i++) s[t][i] = ((const T *)u)[i] * v[t * c_in];                                     \
        for (int k = 1; k < c_in; k++)                                                                                 \
            for (int t = 0; t < rows_out; t++)                                                                         \
                for (int i = 0; i < n; i++) s[t][i] += ((const T *)u)[k * n + i] * v[t * c_in + k];                    \
        for (int t = 0; t < rows_out; t++)                                                                             \
            for (int i = 0; i < n; i++) ((T *)(m + t * c_out))[i] = s[t][i];                                           \
    }                                                                                                                  \
    INLINE void name##_outer(REAL *restrict u, const REAL *restrict v, const REAL *restrict m, int64_t rows, int c_in, \
                             int c_out) {                                                                              \
        T s[rows_in][n];                                                                                               \
        for (int k = 0; k < rows_in; k++)                                                                              \
            for (int i = 0; i < n; i++) s[k][i] = ((const T *)u)[k * n + i];                                           \
        for (int64_t t = 0; t < rows; t++)                                                                             \
            for (int k = 0; k < rows_in; k++)                                                                          \
                for (int i = 0; i < n; i++) s[k][i] += ((const T *)(m + t * c_out))[i] * v[t * c_in + k];              \
        for (int k = 0; k < rows_in; k++)                                                                              \
            for (int i = 0; i < n; i++) ((T *)u)[k * n + i] = s[k][i];                                                 \
    }
PRODUCTS(wide, Vector, 2, ROWS_OUT, ROWS_IN)
PRODUCTS(single, Vector, 1, BLOCK_ROWS, OUTER_ROWS)
PRODUCTS(narrow, Piece, 1, BLOCK_ROWS, OUTER_ROWS)

/* m = v u where row t of v is read from an image: `numbers` of each of three lines, from v[t] on. */
#define OF_LINES(name, T, n)                                                                                           \
    INLINE void name##_of_lines(REAL *restrict m, const REAL *const v[PIXELS], const REAL *restrict u, int numbers,     \
                                int64_t line, int c_out) {                                                             \
        T s[PIXELS][n];                                                                                                \
        const REAL *at[PIXELS];                                                                                        \
        for (int t = 0; t < PIXELS; t++) at[t] = v[t];                                                                 \
        for (int t = 0; t < PIXELS; t++)                                                                               \
            for (int i = 0; i < n; i++) s[t][i] = (T){0};                                                              \
        for (int64_t begin = 0; begin < 3 * line; begin += line)                                                       \
            for (int64_t k = begin; k < begin + numbers; k++, u += n * sizeof(T) / sizeof *u)                          \
                for (int t = 0; t < PIXELS; t++)                                                                       \
                    for (int i = 0; i < n; i++) s[t][i] += ((const T *)u)[i] * at[t][k];                               \
        for (int t = 0; t < PIXELS; t++)                                                                               \
            for (int i = 0; i < n; i++) ((T *)(m + t * c_out))[i] = s[t][i];                                           \
    }
OF_LINES(wide, Vector, 2)
OF_LINES(single, Vector, 1)
OF_LINES(narrow, Piece, 1)

static void multiply_lines(REAL *m, const REAL *const v[PIXELS], const REAL *u, int numbers, int64_t line, int c_out) {
    int j = 0;
    for (; j + WIDE <= c_out; j += WIDE) wide_of_lines(m + j, v, u + j * 3 * numbers, numbers, line, c_out);
    for (; j + VECTOR <= c_out; j += VECTOR) single_of_lines(m + j, v, u + j * 3 * numbers, numbers, line, c_out);
    for (; j < c_out; j += PIECE) narrow_of_lines(m + j, v, u + j * 3 * numbers, numbers, line, c_out);
}

/* m = v u; rows is a multiple of BLOCK_ROWS. */
static void multiply(REAL *m, const REAL *v, const REAL *u, int64_t rows, int c_in, int c_out) {
    int j = 0;
#define PANELS(name, width, some)                                                                                      \
    for (; j + width <= c_out; j += width)                                                                             \
        for (int64_t t = 0; t < rows; t += some)                                                                       \
            name##_product(m + t * c_out + j, v + t * c_in, u + j * c_in, c_in, c_out);
    PANELS(wide, WIDE, ROWS_OUT)
    PANELS(single, VECTOR, BLOCK_ROWS)
    PANELS(narrow, PIECE, BLOCK_ROWS)
#undef PANELS
}

/* u += v^T m */
static void accumulate(REAL *u, const REAL *v, const REAL *m, int64_t rows, int c_in, int c_out) {
    int j = 0;
#define PANELS(name, width, some)                                                                                      \
    for (; j + width <= c_out; j += width)                                                                             \
        for (int k = 0; k < c_in; k += some) name##_outer(u + j * c_in + k * width, v + k, m + j, rows, c_in, c_out);
    PANELS(wide, WIDE, ROWS_IN)
    PANELS(single, VECTOR, OUTER_ROWS)
    PANELS(narrow, PIECE, OUTER_ROWS)
#undef PANELS
}

/* Where the weight of tap t, input channel k and output channel j is. */
#define WEIGHT_AT(t, k, j) ((j) * s.c_out + (k) * s.c_in + (t) / 3 * s.down + (t) % 3 * s.right)

/* y where x is positive, else 0. A NaN in x lets y pass, as in PyTorch. */
#define WHERE_POSITIVE(x, y) ((__typeof__(y))(~((x) <= 0) & (__typeof__((x) <= 0))(y)))

/* y = x, or its ReLU. */
static void copy(REAL *restrict y, const REAL *restrict x, int64_t numbers, int relu) {
    if (!relu) memcpy(y, x, numbers * sizeof *y);
    else
        for (int64_t i = 0; i < numbers; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

/* Read `numbers` of an input, whole pixels, from `at` on. */
static void load(REAL *restrict y, const Input *in, int64_t at, int64_t numbers) {
    if (!in->factors) copy(y, in->x + at, numbers, in->relu);
    else {
        const REAL *a = in->factors, *b = a + in->row, *d = b + in->row;
        const int64_t whole = numbers / in->row * in->row, rest = at + whole;
        combined(y, in->x + at, a, in->term + at, b, d, numbers / in->row, in->row);
        combined(y + whole, in->x + rest, a, in->term + rest, b, d, 1, numbers - whole);
    }
}

/* Copy `rows` of an image, from row y on, into a frame, `pad` pixels from its left; rows outside the image become
   zeros. The frame's other pixels stay as they are. */
static void cut(REAL *frame, const Input *in, int64_t image, int64_t y, int rows, int64_t h, int64_t w, int64_t line,
                int pad, int c) {
    for (int r = 0; r < rows; r++)
        if (y + r < 0 || y + r >= h) memset(frame + r * line, 0, line * sizeof(REAL));
        else load(frame + r * line + pad * c, in, (image * h + y + r) * w * c, w * c);
}

/* A weight as a matrix, in panels: a row per tap and input channel, a column per output channel; if `turned`, its
   transpose. The threads share the work. */
static void to_matrix(REAL *u, const REAL *weight, Strides s, int taps, int c_in, int c_out, int turned) {
    const int64_t rows = turned ? c_out : taps * c_in, columns = turned ? taps * c_in : c_out;
    const int64_t step = turned ? s.c_in : s.c_out;
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t q = 0; q < columns; q += PIECE) {
            const int64_t in = turned ? q : r, out = turned ? r : q;
            const REAL *from = weight + WEIGHT_AT(in / c_in, in % c_in, out);
            REAL *to = u + in_panels(r, q, rows, columns);
            for (int e = 0; e < PIECE; e++) to[e] = from[e * step];
        }
}

/* The reverse: weight = the sum of the threads' matrices, which begin `size` numbers apart. */
static void from_matrices(REAL *weight, const REAL *parts, int threads, int64_t size, Strides s, int taps, int c_in,
                          int c_out) {
    const int64_t rows = taps * c_in;
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < c_out; j += PIECE) {
            Piece sum = {0};
            for (int i = 0; i < threads; i++) sum += AT(parts + i * size + in_panels(r, j, rows, c_out));
            for (int e = 0; e < PIECE; e++) weight[WEIGHT_AT(r / c_in, r % c_in, j + e)] = sum[e];
        }
}

/* y = the convolution of an Input (x, term, factors, relu); s: strides of the weight. In a backward through a ReLU,
   `of` is the ReLU's input: y is zero where `of` is not positive. */
int conv1x1(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
            const REAL *term, const REAL *factors, const REAL *weight, const REAL *of, REAL *y) {
    const Input in = {x, term, factors, relu, row(c_in)};
    const int most = omp_get_max_threads();
    const int64_t pixels = images * h * w, rows = (pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; /* one block each */
    const int64_t of_x = BLOCK_ROWS * c_in, of_y = BLOCK_ROWS * c_out, size = of_x + of_y;
    REAL *u = aligned_alloc(64, (c_in * c_out + most * size) * sizeof *u);
    if (!u) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *block = u + c_in * c_out + i * size, *found = block + of_x;
        memset(block, 0, size * sizeof *block);
        to_matrix(u, weight, s, 1, c_in, c_out, 0);
        for (int64_t r = from; r < to; r++) {
            const int64_t some = pixels - r * BLOCK_ROWS < BLOCK_ROWS ? pixels - r * BLOCK_ROWS : BLOCK_ROWS;
            const int whole = some == BLOCK_ROWS, direct = whole && !relu && !factors;
            REAL *into = whole ? y + r * of_y : found;
            if (!direct) load(block, &in, r * of_x, some * c_in);
            multiply(into, direct ? x + r * of_x : block, u, BLOCK_ROWS, c_in, c_out);
            if (of)
                for (int64_t k = 0; k < some * c_out; k += PIECE)
                    AT(into + k) = WHERE_POSITIVE(AT(of + r * of_y + k), AT(into + k));
            if (!whole) memcpy(y + r * of_y, found, some * c_out * sizeof *y);
        }
    }
    free(u);
    return 1;
}

/* of_weight = the weight's gradient, from g, the gradient of the output. */
int conv1x1_of_weight(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, int relu, const REAL *x,
                      const REAL *g, REAL *of_weight) {
    const int most = omp_get_max_threads();
    const int64_t rows = images * h * w, size = c_in * c_out + ROWS * c_in;
    REAL *parts = aligned_alloc(64, most * size * sizeof *parts);
    if (!parts) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *own = parts + i * size, *block = own + c_in * c_out;
        memset(own, 0, c_in * c_out * sizeof *own);
        for (int64_t r = from; r < to; r += ROWS) {
            const int64_t some = to - r < ROWS ? to - r : ROWS;
            if (relu) copy(block, x + r * c_in, some * c_in, relu);
            accumulate(own, relu ? block : x + r * c_in, g + r * c_out, some, c_in, c_out);
        }
        from_matrices(of_weight, parts, threads, size, s, 1, c_in, c_out);
    }
    free(parts);
    return 1;
}
