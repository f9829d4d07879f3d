/* Part of kernels.c: the backward of depthwise convolution. */

/* Copy an image of h x w to every step-th pixel of a frame that is read with a stride. */
static void fill(REAL *frame, Frame f, const REAL *x, int64_t h, int64_t w, int step, int stride, int c) {
    int64_t part = f.line / stride;
    for (int64_t y = 0; y < h; y++)
        for (int64_t i = 0; i < w; i++) {
            int64_t at = f.pad + i * step;
            memcpy(frame + (f.pad + y * step) * f.line + at % stride * part + at / stride * c, x + (y * w + i) * c,
                   c * sizeof(REAL));
        }
}

/* Where tap t begins to read the frame for row y of the output. */
static inline const REAL *tap(const REAL *frame, Frame f, Window o, int64_t y, int t, int c) {
    int64_t down = t / o.kernel * o.dilation, right = t % o.kernel * o.dilation;
    return frame + (y * o.stride + down) * f.line + right % o.stride * (f.line / o.stride) + right / o.stride * c;
}

/* y = the convolution of the frame; weights: a row of w numbers per tap */
static void convolve(REAL *restrict y, const REAL *restrict frame, Frame f, Window o, const REAL *restrict weights,
                     int64_t h, int64_t width, int c, int w) {
    const int taps = o.kernel * o.kernel;
    const int64_t line = width * c;
    const REAL *begins[taps];
    for (int64_t r = 0; r < h; r++, y += line) {
        for (int t = 0; t < taps; t++) begins[t] = tap(frame, f, o, r, t, c);
        int64_t i = 0;
        for (int at = 0; i + LANES <= line; i += LANES, at = (at + LANES) % w) {
            Vector sum[LANES / VECTOR] = {0};
            for (int t = 0; t < taps; t++) {
                const Vector *x = (const void *)(begins[t] + i), *a = (const void *)(weights + t * w + at);
                for (int v = 0; v < LANES / VECTOR; v++) sum[v] += x[v] * a[v];
            }
            memcpy(y + i, sum, sizeof sum);
        }
        for (; i < line; i++) {
            y[i] = 0;
            for (int t = 0; t < taps; t++) y[i] += begins[t][i] * weights[t * w + i % w];
        }
    }
}

/* sums (a row of w per tap) += g times what the tap reads; a few rows of the map at a time, which stay in the cache
   */
static void correlate(double *restrict sums, const REAL *restrict g, const REAL *restrict frame, Frame f, Window o,
                      int64_t h, int64_t width, int c, int w) {
    const int64_t line = width * c, step = 1 + BLOCK / line;
    for (int64_t from = 0; from < h; from += step)
        for (int t = 0; t < o.kernel * o.kernel; t++)
            for (int at = 0; at < w; at += LANES) {
                Vector sum[LANES / VECTOR] = {0};
                REAL ends[LANES] = {0}, found[LANES];
                for (int64_t r = from; r < h && r < from + step; r++) {
                    const REAL *x = tap(frame, f, o, r, t, c), *grad = g + r * line;
                    int64_t i = at;
                    for (; i + LANES <= line; i += w) {
                        const Vector *a = (const void *)(x + i), *b = (const void *)(grad + i);
                        for (int v = 0; v < LANES / VECTOR; v++) sum[v] += a[v] * b[v];
                    }
                    for (int j = 0; i + j < line && j < LANES; j++) ends[j] += grad[i + j] * x[i + j];
                }
                memcpy(found, sum, sizeof sum);
                for (int j = 0; j < LANES; j++) sums[t * w + at + j] += found[j] + ends[j];
            }
}

/* From g, the gradient of the output: of_x and of_weight, either of which may be 0. Images of h x w, "same" padding,
   no bias. of_x is a convolution of g, its pixels spread by the stride, with the kernels rotated by 180 degrees. */
int depthwise_backward(int64_t images, int64_t h, int64_t w, int c, Window o, const REAL *g, const REAL *x,
                       const REAL *weight, REAL *of_x, REAL *of_weight) {
    const int taps = o.kernel * o.kernel, wide = row(c), most = omp_get_max_threads();
    const int64_t up = (h - 1) / o.stride + 1, across = (w - 1) / o.stride + 1;
    const Window back = {o.kernel, 1, o.dilation};
    const Frame read = frame_of(o, h, w, c), spread = frame_of(back, h, w, c);
    const int64_t size = read.size + spread.size;
    REAL *rows = malloc(taps * wide * sizeof *rows), *frames = calloc(most * size, sizeof *frames);
    double *parts = calloc(most * taps * wide, sizeof *parts);
    if (!rows || !frames || !parts) return free(rows), free(frames), free(parts), 0;
    for (int t = 0; t < taps; t++) { /* the rotated kernels */
        for (int j = 0; j < c; j++) rows[t * wide + j] = weight[j * taps + taps - 1 - t];
        repeat(rows + t * wide, c, wide);
    }
#pragma omp parallel for num_threads(most) schedule(static)
    for (int64_t b = 0; b < images; b++) {
        int i = omp_get_thread_num();
        const REAL *grad = g + b * up * across * c;
        REAL *frame = frames + i * size;
        if (of_weight) {
            fill(frame, read, x + b * h * w * c, h, w, 1, o.stride, c);
            correlate(parts + i * taps * wide, grad, frame, read, o, up, across, c, wide);
        }
        if (of_x) {
            frame += read.size;
            fill(frame, spread, grad, up, across, o.stride, 1, c);
            convolve(of_x + b * h * w * c, frame, spread, back, rows, h, w, c, wide);
        }
    }
    if (of_weight)
        for (int t = 0; t < taps; t++)
            for (int j = 0; j < c; j++) of_weight[j * taps + t] = all(parts + t * wide, most, taps * wide, c, wide, j);
    free(rows);
    free(frames);
    free(parts);
    return 1;
}
