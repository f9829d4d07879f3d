/* Part of kernels.c: products of matrices of few columns, and 1 x 1 convolution by them. Channels come in multiples of
   8. */

#define PIECE (int)(32 / sizeof(REAL))
typedef REAL NAME(Piece) __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));

/* A block of a product that is kept in registers: so many rows of 64 bytes, or BLOCK_ROWS of one PIECE. */
#ifdef __AVX512F__
#define WIDE NAME(Vector)
#define ROWS_OUT 12
#define ROWS_IN 8
#else
#define WIDE NAME(Piece)
#define ROWS_OUT 6
#define ROWS_IN 4
#endif
#define BLOCK_ROWS 12 /* a multiple of ROWS_OUT */
#define OUTER_ROWS 8  /* of ROWS_IN */
#define WIDTH (int)(64 / sizeof(REAL))
#define INLINE static inline __attribute__((always_inline))
#define AT(address) (*(NAME(Piece) *)(address))

/* A block of m = v u, and of u += v^T m, of n registers a row: v is rows x c_in, u c_in x c_out. */
#define PRODUCTS(name, T, n, rows_out, rows_in)                                                               \
    INLINE void NAME(name##_product)(REAL *restrict m, const REAL *restrict v, const REAL *restrict u,        \
                                     int c_in, int c_out) {                                                   \
        T s[rows_out][n];                                                                                     \
        for (int t = 0; t < rows_out; t++)                                                                    \
            for (int i = 0; i < n; i++) s[t][i] = ((const T *)u)[i] * v[t * c_in];                            \
        for (int k = 1; k < c_in; k++)                                                                        \
            for (int t = 0; t < rows_out; t++)                                                                \
                for (int i = 0; i < n; i++) s[t][i] += ((const T *)(u + k * c_out))[i] * v[t * c_in + k];     \
        for (int t = 0; t < rows_out; t++)                                                                    \
            for (int i = 0; i < n; i++) ((T *)(m + t * c_out))[i] = s[t][i];                                  \
    }                                                                                                         \
    INLINE void NAME(name##_outer)(REAL *restrict u, const REAL *restrict v, const REAL *restrict m,          \
                                   int64_t rows, int c_in, int c_out) {                                      \
        T s[rows_in][n];                                                                                      \
        for (int k = 0; k < rows_in; k++)                                                                     \
            for (int i = 0; i < n; i++) s[k][i] = ((const T *)(u + k * c_out))[i];                            \
        for (int64_t t = 0; t < rows; t++)                                                                   \
            for (int k = 0; k < rows_in; k++)                                                                 \
                for (int i = 0; i < n; i++) s[k][i] += ((const T *)(m + t * c_out))[i] * v[t * c_in + k];     \
        for (int k = 0; k < rows_in; k++)                                                                     \
            for (int i = 0; i < n; i++) ((T *)(u + k * c_out))[i] = s[k][i];                                  \
    }
PRODUCTS(wide, WIDE, (int)(64 / sizeof(WIDE)), ROWS_OUT, ROWS_IN)
PRODUCTS(narrow, NAME(Piece), 1, BLOCK_ROWS, OUTER_ROWS)

/* m = v u; rows: what fills blocks of BLOCK_ROWS. */
static void NAME(multiply)(REAL *m, const REAL *v, const REAL *u, int64_t rows, int c_in, int c_out) {
    int j = 0;
    for (; j + WIDTH <= c_out; j += WIDTH)
        for (int64_t t = 0; t < rows; t += ROWS_OUT)
            NAME(wide_product)(m + t * c_out + j, v + t * c_in, u + j, c_in, c_out);
    for (; j < c_out; j += PIECE)
        for (int64_t t = 0; t < rows; t += BLOCK_ROWS)
            NAME(narrow_product)(m + t * c_out + j, v + t * c_in, u + j, c_in, c_out);
}

/* u += v^T m */
static void NAME(accumulate)(REAL *u, const REAL *v, const REAL *m, int64_t rows, int c_in, int c_out) {
    int j = 0;
    for (; j + WIDTH <= c_out; j += WIDTH)
        for (int k = 0; k < c_in; k += ROWS_IN)
            NAME(wide_outer)(u + k * c_out + j, v + k, m + j, rows, c_in, c_out);
    for (; j < c_out; j += PIECE)
        for (int k = 0; k < c_in; k += OUTER_ROWS)
            NAME(narrow_outer)(u + k * c_out + j, v + k, m + j, rows, c_in, c_out);
}

/* y, of pixels; the strides of the weight are given. */
int NAME(conv1x1)(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, const REAL *x,
                  const REAL *weight, REAL *y) {
    const int most = omp_get_max_threads();
    const int64_t pixels = images * h * w, rows = (pixels + BLOCK_ROWS - 1) / BLOCK_ROWS; /* rows of blocks */
    REAL *u = aligned_alloc(64, (c_in * c_out + BLOCK_ROWS * (c_in + c_out)) * sizeof *u);
    REAL *last_x = u + c_in * c_out, *last_y = last_x + BLOCK_ROWS * c_in;
    if (!u) return 0;
    for (int k = 0; k < c_in; k++)
        for (int j = 0; j < c_out; j++) u[k * c_out + j] = weight[j * s.c_out + k * s.c_in];
#pragma omp parallel num_threads(most)
    {
        BEGIN
        for (int64_t r = from; r < to && (r + 1) * BLOCK_ROWS <= pixels; r++)
            NAME(multiply)(y + r * BLOCK_ROWS * c_out, x + r * BLOCK_ROWS * c_in, u, BLOCK_ROWS, c_in, c_out);
    }
    const int64_t rest = pixels % BLOCK_ROWS;
    memset(last_x, 0, BLOCK_ROWS * c_in * sizeof *u);
    memcpy(last_x, x + (pixels - rest) * c_in, rest * c_in * sizeof *u);
    NAME(multiply)(last_y, last_x, u, BLOCK_ROWS, c_in, c_out);
    memcpy(y + (pixels - rest) * c_out, last_y, rest * c_out * sizeof *u);
    free(u);
    return 1;
}

/* of_weight, from g, the gradient of the output; its strides are given. */
int NAME(conv1x1_of_weight)(int64_t images, int64_t h, int64_t w, int c_in, int c_out, Strides s, const REAL *x,
                            const REAL *g, REAL *of_weight) {
    const int most = omp_get_max_threads();
    const int64_t rows = images * h * w, size = c_in * c_out;
    REAL *parts = aligned_alloc(64, most * size * sizeof *parts);
    if (!parts) return 0;
    memset(parts, 0, most * size * sizeof *parts);
#pragma omp parallel num_threads(most)
    {
        BEGIN
        for (int64_t r = from; r < to; r += ROWS)
            NAME(accumulate)(parts + i * size, x + r * c_in, g + r * c_out, to - r < ROWS ? to - r : ROWS, c_in, c_out);
    }
    for (int k = 0; k < c_in; k++)
        for (int j = 0; j < c_out; j++) {
            REAL sum = 0;
            for (int i = 0; i < most; i++) sum += parts[i * size + k * c_out + j];
            of_weight[j * s.c_out + k * s.c_in] = sum;
        }
    free(parts);
    return 1;
}

#undef PRODUCTS
#undef WIDE
#undef ROWS_OUT
#undef ROWS_IN
