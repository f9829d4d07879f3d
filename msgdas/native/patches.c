/* Part of kernels.c: 3 x 3 convolution with a stride, "same" padding: what it takes for a pixel, its patch, is a row of
   a matrix. Of x relu is as in conv1x1. */

#define PATCHES (2 * BLOCK_ROWS)

/* Of a convolution: sizes of the input, of an output, numbers of a patch. */
typedef struct {
    int64_t h, w, across, pixels, numbers;
    int c, stride;
} Patches;

static Patches patches(int64_t h, int64_t w, int c, int stride) {
    const int64_t across = (w - 1) / stride + 1;
    return (Patches){h, w, across, ((h - 1) / stride + 1) * across, 9 * c, c, stride};
}

/* What of row r of pixel k's patch lies in its image: numbers from `at` on in the map, from `skip` on in the row. */
typedef struct {
    int64_t at, skip, some;
} Part;

INLINE Part part(Patches p, int64_t k, int r) {
    const int64_t image = k / p.pixels, pixel = k % p.pixels;
    const int64_t y = pixel / p.across * p.stride + r - 1, x = pixel % p.across * p.stride - 1;
    if (y < 0 || y >= p.h) return (Part){0, 0, 0};
    const int left = x < 0, right = x + 3 > p.w;
    return (Part){((image * p.h + y) * p.w + x + left) * p.c, left * p.c, (3 - left - right) * p.c};
}

static void gather(REAL *restrict rows, const REAL *restrict x, Patches p, int64_t k, int64_t some, int relu) {
    for (int64_t t = 0; t < some; t++)
        for (int r = 0; r < 3; r++, rows += 3 * p.c) {
            const Part in = part(p, k + t, r);
            if (in.some < 3 * p.c) memset(rows, 0, 3 * p.c * sizeof *rows);
            copy(rows + in.skip, x + in.at, in.some, relu);
        }
}

static void scatter(REAL *restrict x, const REAL *restrict rows, Patches p, int64_t k, int64_t some) {
    for (int64_t t = 0; t < some; t++)
        for (int r = 0; r < 3; r++, rows += 3 * p.c) {
            const Part in = part(p, k + t, r);
            for (int64_t j = 0; j < in.some; j += PIECE) AT(x + in.at + j) += AT(rows + in.skip + j);
        }
}

int strided3x3(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, int relu, const REAL *x,
               const REAL *weight, REAL *y) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, stride);
    const int64_t weights = p.numbers * c_out, size = BLOCK_ROWS * (p.numbers + c_out), rows = images * p.pixels;
    REAL *u = aligned_alloc(64, (weights + most * size) * sizeof *u);
    if (!u) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *block = u + weights + i * size, *found = block + BLOCK_ROWS * p.numbers;
        memset(block, 0, size * sizeof *block);
        to_matrix(u, weight, s, 9, c, c_out, 0);
        for (int64_t k = from; k < to; k += BLOCK_ROWS) {
            const int64_t some = to - k < BLOCK_ROWS ? to - k : BLOCK_ROWS;
            gather(block, x, p, k, some, relu);
            multiply(some < BLOCK_ROWS ? found : y + k * c_out, block, u, BLOCK_ROWS, p.numbers, c_out);
            if (some < BLOCK_ROWS) memcpy(y + k * c_out, found, some * c_out * sizeof *y);
        }
    }
    free(u);
    return 1;
}

/* of_x, from g, the gradient of the output; `of` as in conv1x1. */
int strided3x3_of_input(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, const REAL *g,
                        const REAL *weight, const REAL *of, REAL *of_x) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, stride);
    const int64_t weights = p.numbers * c_out, size = BLOCK_ROWS * (p.numbers + c_out), rows = images;
    REAL *u = aligned_alloc(64, (weights + most * size) * sizeof *u);
    if (!u) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *block = u + weights + i * size, *last = block + BLOCK_ROWS * p.numbers;
        const int64_t end = to * p.pixels, image = h * w * c;
        memset(last, 0, BLOCK_ROWS * c_out * sizeof *last);
        memset(of_x + from * image, 0, (to - from) * image * sizeof *of_x);
        to_matrix(u, weight, s, 9, c, c_out, 1);
        for (int64_t k = from * p.pixels; k < end; k += BLOCK_ROWS) {
            const int64_t some = end - k < BLOCK_ROWS ? end - k : BLOCK_ROWS;
            const REAL *grad = g + k * c_out;
            if (some < BLOCK_ROWS) grad = memcpy(last, grad, some * c_out * sizeof *g);
            multiply(block, grad, u, BLOCK_ROWS, c_out, p.numbers);
            scatter(of_x, block, p, k, some);
        }
        if (of)
            for (int64_t j = from * image; j < to * image; j += PIECE)
                AT(of_x + j) = WHERE_POSITIVE(AT(of + j), AT(of_x + j));
    }
    free(u);
    return 1;
}

int strided3x3_of_weight(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, int relu,
                         const REAL *x, const REAL *g, REAL *of_weight) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, stride);
    const int64_t weights = p.numbers * c_out, size = weights + PATCHES * p.numbers, rows = images * p.pixels;
    REAL *parts = aligned_alloc(64, most * size * sizeof *parts);
    if (!parts) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *own = parts + i * size, *block = own + weights;
        memset(own, 0, weights * sizeof *own);
        for (int64_t k = from; k < to; k += PATCHES) {
            const int64_t some = to - k < PATCHES ? to - k : PATCHES;
            gather(block, x, p, k, some, relu);
            accumulate(own, block, g + k * c_out, some, p.numbers, c_out);
        }
        from_matrices(of_weight, parts, threads, size, s, 9, c, c_out);
    }
    free(parts);
    return 1;
}
