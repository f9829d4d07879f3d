/* Part of kernels.c: 3 x 3 convolution with a stride, "same" padding: what it takes for a pixel, its patch, is a row of
   a matrix. Of x relu is as in conv1x1. */

#define PATCHES (2 * BLOCK_ROWS)

typedef struct {
    int64_t across, pixels; /* of an output */
    int64_t line, frame, numbers; /* of a frame's row, of a frame, of a patch */
    int64_t weights, size; /* numbers of the weight; of what a thread needs: a frame, a block of patches and of pixels */
    int stride;
} Patches;

static Patches patches(int64_t h, int64_t w, int c, int c_out, int stride) {
    Patches p = {.across = (w - 1) / stride + 1, .line = (w + 2) * c, .numbers = 9 * c, .stride = stride};
    p.pixels = ((h - 1) / stride + 1) * p.across;
    p.frame = (h + 2) * p.line;
    p.weights = p.numbers * c_out;
    p.size = p.frame + BLOCK_ROWS * (p.numbers + c_out);
    return p;
}

/* Room for the weight's matrix, and zeros for each thread. */
static REAL *workspace(Patches p, int threads) {
    REAL *u = malloc((p.weights + threads * p.size) * sizeof *u);
    if (u) memset(u + p.weights, 0, threads * p.size * sizeof *u);
    return u;
}

/* The three rows of pixel k's patch begin at its row 0 in the frame and a line further each. */
#define PATCH_AT(frame, k) ((frame) + (k) / p.across * p.stride * p.line + (k) % p.across * p.stride * c)

static void gather(REAL *restrict rows, const REAL *restrict frame, Patches p, int64_t k, int64_t some, int c) {
    for (int64_t t = 0; t < some; t++, k++)
        for (int r = 0; r < 3; r++)
            for (int j = 0; j < 3 * c; j += PIECE)
                AT(rows + t * p.numbers + r * 3 * c + j) = AT(PATCH_AT(frame, k) + r * p.line + j);
}

static void scatter(REAL *restrict frame, const REAL *restrict rows, Patches p, int64_t k, int64_t some, int c) {
    for (int64_t t = 0; t < some; t++, k++)
        for (int r = 0; r < 3; r++)
            for (int j = 0; j < 3 * c; j += PIECE)
                AT(PATCH_AT(frame, k) + r * p.line + j) += AT(rows + t * p.numbers + r * 3 * c + j);
}

int strided3x3(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, int relu, const REAL *x,
               const REAL *weight, REAL *y) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, c_out, stride);
    REAL *u = workspace(p, most);
    if (!u) return 0;
    to_matrix(u, weight, s, 9, c, c_out, c_out, 1);
#pragma omp parallel for num_threads(most) schedule(static)
    for (int64_t b = 0; b < images; b++) {
        REAL *frame = u + p.weights + omp_get_thread_num() * p.size, *rows = frame + p.frame;
        REAL *found = rows + BLOCK_ROWS * p.numbers, *out = y + b * p.pixels * c_out;
        for (int64_t r = 0; r < h; r++) copy(frame + (r + 1) * p.line + c, x + (b * h + r) * w * c, w * c, relu);
        for (int64_t k = 0; k < p.pixels; k += BLOCK_ROWS) {
            const int64_t some = p.pixels - k < BLOCK_ROWS ? p.pixels - k : BLOCK_ROWS;
            gather(rows, frame, p, k, some, c);
            multiply(some < BLOCK_ROWS ? found : out + k * c_out, rows, u, BLOCK_ROWS, p.numbers, c_out);
            if (some < BLOCK_ROWS) memcpy(out + k * c_out, found, some * c_out * sizeof *y);
        }
    }
    free(u);
    return 1;
}

/* of_x, from g, the gradient of the output; `of` as in conv1x1. */
int strided3x3_of_input(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, const REAL *g,
                        const REAL *weight, const REAL *of, REAL *of_x) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, c_out, stride);
    REAL *u = workspace(p, most);
    if (!u) return 0;
    to_matrix(u, weight, s, 9, c, c_out, 1, p.numbers);
#pragma omp parallel for num_threads(most) schedule(static)
    for (int64_t b = 0; b < images; b++) {
        REAL *frame = u + p.weights + omp_get_thread_num() * p.size, *rows = frame + p.frame;
        REAL *last = rows + BLOCK_ROWS * p.numbers;
        memset(frame, 0, p.frame * sizeof *frame);
        for (int64_t k = 0; k < p.pixels; k += BLOCK_ROWS) {
            const int64_t some = p.pixels - k < BLOCK_ROWS ? p.pixels - k : BLOCK_ROWS;
            const REAL *grad = g + (b * p.pixels + k) * c_out;
            if (some < BLOCK_ROWS) grad = memcpy(last, grad, some * c_out * sizeof *g);
            multiply(rows, grad, u, BLOCK_ROWS, c_out, p.numbers);
            scatter(frame, rows, p, k, some, c);
        }
        for (int64_t r = 0; r < h; r++)
            for (int64_t j = 0, at = (b * h + r) * w * c; j < w * c; j += PIECE) {
                Piece found = AT(frame + (r + 1) * p.line + c + j);
                AT(of_x + at + j) = of ? where_positive(AT(of + at + j), found) : found;
            }
    }
    free(u);
    return 1;
}

int strided3x3_of_weight(int64_t images, int64_t h, int64_t w, int c, int c_out, Strides s, int stride, int relu,
                         const REAL *x, const REAL *g, REAL *of_weight) {
    const int most = omp_get_max_threads();
    const Patches p = patches(h, w, c, c_out, stride);
    const int64_t size = p.weights + p.frame + PATCHES * p.numbers;
    REAL *parts = calloc(most * size, sizeof *parts);
    if (!parts) return 0;
#pragma omp parallel for num_threads(most) schedule(static)
    for (int64_t b = 0; b < images; b++) {
        REAL *own = parts + omp_get_thread_num() * size, *frame = own + p.weights, *rows = frame + p.frame;
        for (int64_t r = 0; r < h; r++) copy(frame + (r + 1) * p.line + c, x + (b * h + r) * w * c, w * c, relu);
        for (int64_t k = 0; k < p.pixels; k += PATCHES) {
            const int64_t some = p.pixels - k < PATCHES ? p.pixels - k : PATCHES;
            gather(rows, frame, p, k, some, c);
            accumulate(own, rows, g + (b * p.pixels + k) * c_out, some, p.numbers, c_out);
        }
    }
    from_matrices(of_weight, parts, most, size, s, 9, c, c_out);
    free(parts);
    return 1;
}
