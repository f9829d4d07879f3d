/* Part of kernels.c: 3 x 3 convolution with a stride, or of few channels, "same" padding. The numbers that an output
   pixel depends on, its patch, are a row of a matrix. `relu`: read the ReLU of x. */

#define PATCHES (2 * BLOCK_ROWS)

/* Sizes of a convolution: the input's, pixels per row and image of the output, numbers per patch. */
typedef struct {
    int64_t h, w, across, pixels, numbers;
    int c, stride;
} Patches;

static Patches patches(int64_t h, int64_t w, int c, int stride) {
    const int64_t across = (w - 1) / stride + 1;
    return (Patches){h, w, across, ((h - 1) / stride + 1) * across, 9 * c, c, stride};
}

/* The part of row r of pixel k's patch that lies in the image: from `at` on in the map, from `skip` on in the row. */
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

/* y = the convolution; any number of input channels. Patches are read in place, from a strip of about STRETCH numbers
   of the image with zeros around it. */
int strided3x3(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, int relu, const REAL *x,
               const REAL *weight, REAL *y) {
    const Input in = {x, 0, 0, relu, row(c)};
    const int most = omp_get_max_threads();
    const int64_t down = (h - 1) / stride + 1, across = (w - 1) / stride + 1, line = (w + 2) * c;
    int64_t strip = STRETCH / (stride * line);
    strip = strip < 1 ? 1 : strip > down ? down : strip;
    const int64_t strips = (down + strip - 1) / strip, rows = images * strips, lines = (strip - 1) * stride + 3;
    const int64_t weights = (9 * c * c_out + LINE - 1) / LINE * LINE;
    const int64_t size = (lines * line + PIXELS * c_out + LINE - 1) / LINE * LINE;
    REAL *u = aligned_alloc(64, (weights + most * size) * sizeof *u);
    if (!u) return 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *frame = u + weights + i * size, *found = frame + lines * line;
        memset(frame, 0, size * sizeof *frame);
        to_matrix(u, weight, s, 9, c, c_out, 0);
        for (int64_t r = from; r < to; r++) {
            const int64_t begin = r % strips * strip, some = down - begin < strip ? down - begin : strip;
            const int64_t pixels = some * across;
            REAL *out = y + (r / strips * down + begin) * across * c_out;
            cut(frame, &in, r / strips, begin * stride - 1, (some - 1) * stride + 3, h, w, line, 1, c);
            for (int64_t k = 0; k < pixels; k += PIXELS) {
                const REAL *at[PIXELS];
                for (int64_t t = 0; t < PIXELS; t++) {
                    const int64_t pixel = k + t < pixels ? k + t : pixels - 1;
                    at[t] = frame + pixel / across * stride * line + pixel % across * stride * c;
                }
                const int whole = k + PIXELS <= pixels;
                multiply_lines(whole ? out + k * c_out : found, at, u, 3 * c, line, c_out);
                if (!whole) memcpy(out + k * c_out, found, (pixels - k) * c_out * sizeof *out);
            }
        }
    }
    free(u);
    return 1;
}

/* of_x = the input's gradient, from g, the gradient of the output; `of` as in conv1x1. */
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
