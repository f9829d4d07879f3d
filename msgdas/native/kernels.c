/* Sums of maps, of which some are normalised by batch statistics, and their backward, in few passes over memory.

   A map is n pixels of c channels, the channels of a pixel side by side (channels_last). In memory that is also rows of
   w = c * 2^i numbers, a multiple of LANES: so vector instructions are full whatever c. Each thread takes a part of the
   rows; what it sums over pixels it sums in REAL over ROWS rows and in double over those, in an order that depends on
   the number of threads alone.

   This file includes itself, once for each type of number. */

#ifndef REAL

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 32 /* whose sums fit the registers */
#define ROWS 64  /* that a sum in REAL goes over */
#define BLOCK 2048 /* numbers of two maps, which fit the first cache */

/* One summand, w * (x or norm(x)). Addresses are 0 for what there is not. */
typedef struct {
    int64_t x, of_x;                    /* the map; where its gradient goes */
    int64_t stats;                      /* of a normalised one: c means, then c of 1 / standard deviation */
    int64_t gamma, beta;                /* c each */
    int64_t running_mean, running_var;  /* c each, to be updated */
    int64_t of_gamma, of_beta;
    double weight, of_weight, momentum, eps;
} Term;

/* Of a convolution: the side of its square kernel, odd. */
typedef struct {
    int32_t kernel, stride, dilation;
} Window;

/* Zeros around an image, so that no tap needs to look where the map ends. In a frame that is read with stride s a row
   holds every s-th pixel from the first on, then every s-th from the second on, ...: what a tap reads for a row of the
   output lies side by side. */
typedef struct {
    int64_t pad, line, size; /* pixels around; numbers of a row; numbers of all */
} Frame;

static Frame frame_of(Window o, int64_t h, int64_t w, int c) {
    int64_t pad = o.dilation * (o.kernel / 2), line = (w + 2 * pad + o.stride) / o.stride * o.stride * c;
    return (Frame){pad, line, (h + 2 * pad) * line};
}

/* Numbers of a row. */
static int row(int c) {
    int w = c;
    while (w % LANES) w *= 2;
    return w;
}

#define REAL float
#define NAME(f) f##_float
#include "kernels.c"
#undef REAL
#undef NAME
#define REAL double
#define NAME(f) f##_double
#include "kernels.c"

#else

/* With g: sums += g, products += g * (x - centre). Without: sums += x - centre, products += its square. */
static inline void NAME(sum_lanes)(const REAL *restrict g, const REAL *restrict x, const REAL *restrict centre,
                                   int64_t rows, int w, double *restrict sums, double *restrict products) {
    REAL s[LANES] = {0}, p[LANES] = {0}, m[LANES];
    for (int j = 0; j < LANES; j++) m[j] = centre[j];
    if (g)
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < LANES; j++) {
                s[j] += g[r * w + j];
                p[j] += g[r * w + j] * (x[r * w + j] - m[j]);
            }
    else
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < LANES; j++) {
                REAL d = x[r * w + j] - m[j];
                s[j] += d;
                p[j] += d * d;
            }
    for (int j = 0; j < LANES; j++) {
        sums[j] += s[j];
        products[j] += p[j];
    }
}

static void NAME(sum_rows)(const REAL *g, const REAL *x, const REAL *centre, int64_t from, int64_t to, int w,
                           double *sums, double *products) {
    for (int64_t r = from; r < to; r += ROWS)
        for (int j = 0; j < w; j += LANES)
            NAME(sum_lanes)(g ? g + r * w + j : 0, x + r * w + j, centre + j, to - r < ROWS ? to - r : ROWS, w,
                            sums + j, products + j);
}

/* y = a * x + b, or y += a * x without b; rows of w */
static inline void NAME(scaled)(REAL *restrict y, const REAL *restrict x, const REAL *restrict a,
                                const REAL *restrict b, int64_t rows, int w) {
    if (b)
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < w; j++) y[r * w + j] = a[j] * x[r * w + j] + b[j];
    else
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < w; j++) y[r * w + j] += a[j] * x[r * w + j];
}

/* y = a1 * x1 + a2 * x2 + b */
static inline void NAME(combined)(REAL *restrict y, const REAL *restrict x1, const REAL *restrict a1,
                                  const REAL *restrict x2, const REAL *restrict a2, const REAL *restrict b,
                                  int64_t rows, int w) {
    for (int64_t r = 0; r < rows; r++)
        for (int j = 0; j < w; j++) y[r * w + j] = a1[j] * x1[r * w + j] + a2[j] * x2[r * w + j] + b[j];
}

static void NAME(repeat)(REAL *row, int c, int w) {
    for (int j = c; j < w; j++) row[j] = row[j - c];
}

static double NAME(all)(const double *parts, int threads, int64_t stride, int c, int w, int j) {
    double sum = 0;
    for (int i = 0; i < threads; i++)
        for (int l = j; l < w; l += c) sum += parts[i * stride + l];
    return sum;
}

#define MAP(address) ((REAL *)(intptr_t)(address))
#define BEGIN                                                                           \
    int i = omp_get_thread_num(), threads = omp_get_num_threads();                      \
    int64_t from = rows * i / threads, to = rows * (i + 1) / threads;

/* The term's statistics, from sums around centres: sums and products of sum_rows, 2 rows of w from each thread. */
static void NAME(find_statistics)(Term *t, const REAL *centres, const double *parts, int threads, int64_t stride,
                                  int64_t n, int c, int w) {
    REAL *running_mean = MAP(t->running_mean), *running_var = MAP(t->running_var);
    for (int j = 0; j < c; j++) {
        double off = NAME(all)(parts, threads, stride, c, w, j) / n;
        double var = NAME(all)(parts + w, threads, stride, c, w, j) / n - off * off, mean = centres[j] + off;
        if (var < 0) var = 0;
        MAP(t->stats)[j] = mean;
        MAP(t->stats)[c + j] = 1 / sqrt(var + t->eps);
        if (running_mean) {
            running_mean[j] += t->momentum * (mean - running_mean[j]);
            running_var[j] += t->momentum * (var * n / (n - 1) - running_var[j]);
        }
    }
}

/* The term is a * x + shift, of which the shift is added to that of the others. */
static void NAME(find_factors)(const Term *t, REAL *a, REAL *shift, int c, int w) {
    for (int j = 0; j < c; j++) {
        double scale = t->weight;
        if (t->stats) {
            if (t->beta) shift[j] += scale * MAP(t->beta)[j];
            scale *= (double)MAP(t->stats)[c + j] * (t->gamma ? MAP(t->gamma)[j] : 1);
            shift[j] -= scale * MAP(t->stats)[j];
        }
        a[j] = scale;
    }
    NAME(repeat)(a, c, w);
}

/* The gradient of the term's x is a * g + b * x + d, from the sums of g and of g * (x - centre); and of its scalars. */
static void NAME(find_gradients)(Term *t, REAL *a, REAL *b, REAL *d, const REAL *centres, const double *parts,
                                 int threads, int64_t stride, int64_t n, int c, int w) {
    t->of_weight = 0;
    for (int j = 0; j < c; j++) {
        double sum = NAME(all)(parts, threads, stride, c, w, j);
        double product = NAME(all)(parts + w, threads, stride, c, w, j);
        double gamma = t->gamma ? MAP(t->gamma)[j] : 1, scale = t->weight * gamma;
        if (t->stats) {
            double invstd = MAP(t->stats)[c + j];
            product *= invstd; /* with the normalised map */
            if (t->of_gamma) MAP(t->of_gamma)[j] = t->weight * product;
            if (t->of_beta) MAP(t->of_beta)[j] = t->weight * sum;
            if (t->beta) t->of_weight += MAP(t->beta)[j] * sum;
            scale *= invstd;
            b[j] = -scale * invstd * product / n;
            d[j] = -scale * sum / n + scale * invstd * product / n * centres[j];
        }
        t->of_weight += gamma * product;
        a[j] = scale;
    }
    NAME(repeat)(a, c, w);
    NAME(repeat)(b, c, w);
    NAME(repeat)(d, c, w);
}

/* out = sum over the terms. Statistics are written and running ones updated. Returns whether there was memory. */
int NAME(forward)(int64_t n, int c, int count, Term *terms, REAL *out) {
    const int w = row(c), most = omp_get_max_threads();
    const int64_t rows = n * c / w, stride = 2 * w * count;
    double *parts = calloc(most * stride, sizeof *parts);
    REAL *a = malloc((2 * count + 1) * w * sizeof *a), *centres = a + count * w, *shift = centres + count * w;
    if (!parts || !a) return free(parts), free(a), 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
#pragma omp single
        for (int k = 0; k < count; k++)
            if (terms[k].stats) { /* around the first pixel, so that a mean far from zero costs no digits */
                memcpy(centres + k * w, MAP(terms[k].x), c * sizeof(REAL));
                NAME(repeat)(centres + k * w, c, w);
            }
        for (int k = 0; k < count; k++)
            if (terms[k].stats)
                NAME(sum_rows)(0, MAP(terms[k].x), centres + k * w, from, to, w, parts + i * stride + 2 * k * w,
                               parts + i * stride + (2 * k + 1) * w);
#pragma omp barrier
#pragma omp single
        {
            memset(shift, 0, w * sizeof *shift);
            for (int k = 0; k < count; k++) {
                if (terms[k].stats)
                    NAME(find_statistics)(terms + k, centres + k * w, parts + 2 * k * w, threads, stride, n, c, w);
                NAME(find_factors)(terms + k, a + k * w, shift, c, w);
            }
            NAME(repeat)(shift, c, w);
        }
        for (int64_t r = from; r < to; r += ROWS) {
            int64_t block = to - r < ROWS ? to - r : ROWS, at = r * w;
            if (count == 1)
                NAME(scaled)(out + at, MAP(terms[0].x) + at, a, shift, block, w);
            else
                NAME(combined)(out + at, MAP(terms[0].x) + at, a, MAP(terms[1].x) + at, a + w, shift, block, w);
            for (int k = 2; k < count; k++) NAME(scaled)(out + at, MAP(terms[k].x) + at, a + k * w, 0, block, w);
        }
    }
    free(parts);
    free(a);
    return 1;
}

/* From g, the gradient of out: of_x of the terms that want it, of_gamma, of_beta, of_weight of all. */
int NAME(backward)(int64_t n, int c, int count, Term *terms, const REAL *g) {
    const int w = row(c), most = omp_get_max_threads();
    const int64_t rows = n * c / w, stride = 2 * w * count;
    double *parts = calloc(most * stride, sizeof *parts);
    REAL *a = calloc(4 * count * w, sizeof *a), *b = a + count * w, *d = b + count * w, *centres = d + count * w;
    if (!parts || !a) return free(parts), free(a), 0;
    for (int k = 0; k < count; k++)
        if (terms[k].stats) {
            memcpy(centres + k * w, MAP(terms[k].stats), c * sizeof(REAL));
            NAME(repeat)(centres + k * w, c, w);
        }
#pragma omp parallel num_threads(most)
    {
        BEGIN
        for (int64_t r = from; r < to; r += ROWS) /* block by block, so that g is read once */
            for (int k = 0; k < count; k++)
                if (terms[k].x)
                    NAME(sum_rows)(g, MAP(terms[k].x), centres + k * w, r, to - r < ROWS ? to : r + ROWS, w,
                                   parts + i * stride + 2 * k * w, parts + i * stride + (2 * k + 1) * w);
#pragma omp barrier
#pragma omp single
        for (int k = 0; k < count; k++)
            NAME(find_gradients)(terms + k, a + k * w, b + k * w, d + k * w, centres + k * w, parts + 2 * k * w,
                                 threads, stride, n, c, w);
        for (int64_t r = from; r < to; r += ROWS) {
            int64_t block = to - r < ROWS ? to - r : ROWS, at = r * w;
            for (int k = 0; k < count; k++) {
                Term *t = terms + k;
                if (t->of_x && t->stats)
                    NAME(combined)(MAP(t->of_x) + at, g + at, a + k * w, MAP(t->x) + at, b + k * w, d + k * w, block,
                                   w);
                else if (t->of_x)
                    NAME(scaled)(MAP(t->of_x) + at, g + at, a + k * w, d + k * w, block, w);
            }
        }
    }
    free(parts);
    free(a);
    return 1;
}

/* ---- depthwise convolution ---- */

#define VECTOR (int)(64 / sizeof(REAL))
typedef REAL NAME(Vector) __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias)); /* kept in a register */

/* Pixels of a map of h x w at every step-th place of the frame, which is read with a stride. */
static void NAME(fill)(REAL *frame, Frame f, const REAL *x, int64_t h, int64_t w, int step, int stride, int c) {
    int64_t part = f.line / stride;
    for (int64_t y = 0; y < h; y++)
        for (int64_t i = 0; i < w; i++) {
            int64_t at = f.pad + i * step;
            memcpy(frame + (f.pad + y * step) * f.line + at % stride * part + at / stride * c, x + (y * w + i) * c,
                   c * sizeof(REAL));
        }
}

/* Where tap t of the row y of an output begins in the frame. */
static inline const REAL *NAME(tap)(const REAL *frame, Frame f, Window o, int64_t y, int t, int c) {
    int64_t down = t / o.kernel * o.dilation, right = t % o.kernel * o.dilation;
    return frame + (y * o.stride + down) * f.line + right % o.stride * (f.line / o.stride) + right / o.stride * c;
}

/* y = the frame under the kernel; weights: taps rows of w numbers */
static void NAME(convolve)(REAL *restrict y, const REAL *restrict frame, Frame f, Window o,
                           const REAL *restrict weights, int64_t h, int64_t width, int c, int w) {
    const int taps = o.kernel * o.kernel;
    const int64_t line = width * c;
    const REAL *begins[taps];
    for (int64_t r = 0; r < h; r++, y += line) {
        for (int t = 0; t < taps; t++) begins[t] = NAME(tap)(frame, f, o, r, t, c);
        int64_t i = 0;
        for (int at = 0; i + LANES <= line; i += LANES, at = (at + LANES) % w) {
            NAME(Vector) sum[LANES / VECTOR] = {0};
            for (int t = 0; t < taps; t++) {
                const NAME(Vector) *x = (const void *)(begins[t] + i), *a = (const void *)(weights + t * w + at);
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

/* sums: taps rows of w, += g times what each tap reads; a few rows of the map at a time, which stay in the cache */
static void NAME(correlate)(double *restrict sums, const REAL *restrict g, const REAL *restrict frame, Frame f,
                            Window o, int64_t h, int64_t width, int c, int w) {
    const int64_t line = width * c, step = 1 + BLOCK / line;
    for (int64_t from = 0; from < h; from += step)
        for (int t = 0; t < o.kernel * o.kernel; t++)
            for (int at = 0; at < w; at += LANES) {
                NAME(Vector) sum[LANES / VECTOR] = {0};
                REAL ends[LANES] = {0}, found[LANES];
                for (int64_t r = from; r < h && r < from + step; r++) {
                    const REAL *x = NAME(tap)(frame, f, o, r, t, c), *grad = g + r * line;
                    int64_t i = at;
                    for (; i + LANES <= line; i += w) {
                        const NAME(Vector) *a = (const void *)(x + i), *b = (const void *)(grad + i);
                        for (int v = 0; v < LANES / VECTOR; v++) sum[v] += a[v] * b[v];
                    }
                    for (int j = 0; i + j < line && j < LANES; j++) ends[j] += grad[i + j] * x[i + j];
                }
                memcpy(found, sum, sizeof sum);
                for (int j = 0; j < LANES; j++) sums[t * w + at + j] += found[j] + ends[j];
            }
}

/* From g, the gradient of a convolution of images of h x w with "same" padding and no bias: of_x and of_weight, either
   of which may be 0. That of x is a convolution of g, its pixels spread over the map, with the kernels turned round. */
int NAME(depthwise_backward)(int64_t images, int64_t h, int64_t w, int c, Window o, const REAL *g, const REAL *x,
                             const REAL *weight, REAL *of_x, REAL *of_weight) {
    const int taps = o.kernel * o.kernel, wide = row(c), most = omp_get_max_threads();
    const int64_t up = (h - 1) / o.stride + 1, across = (w - 1) / o.stride + 1;
    const Window back = {o.kernel, 1, o.dilation};
    const Frame read = frame_of(o, h, w, c), spread = frame_of(back, h, w, c);
    const int64_t size = read.size + spread.size;
    REAL *rows = malloc(taps * wide * sizeof *rows), *frames = calloc(most * size, sizeof *frames);
    double *parts = calloc(most * taps * wide, sizeof *parts);
    if (!rows || !frames || !parts) return free(rows), free(frames), free(parts), 0;
    for (int t = 0; t < taps; t++) { /* the kernels, turned round */
        for (int j = 0; j < c; j++) rows[t * wide + j] = weight[j * taps + taps - 1 - t];
        NAME(repeat)(rows + t * wide, c, wide);
    }
#pragma omp parallel for num_threads(most) schedule(static)
    for (int64_t b = 0; b < images; b++) {
        int i = omp_get_thread_num();
        const REAL *grad = g + b * up * across * c;
        REAL *frame = frames + i * size;
        if (of_weight) {
            NAME(fill)(frame, read, x + b * h * w * c, h, w, 1, o.stride, c);
            NAME(correlate)(parts + i * taps * wide, grad, frame, read, o, up, across, c, wide);
        }
        if (of_x) {
            frame += read.size;
            NAME(fill)(frame, spread, grad, up, across, o.stride, 1, c);
            NAME(convolve)(of_x + b * h * w * c, frame, spread, back, rows, h, w, c, wide);
        }
    }
    if (of_weight)
        for (int t = 0; t < taps; t++)
            for (int j = 0; j < c; j++)
                of_weight[j * taps + t] = NAME(all)(parts + t * wide, most, taps * wide, c, wide, j);
    free(rows);
    free(frames);
    free(parts);
    return 1;
}

#undef MAP
#undef BEGIN
#undef VECTOR

#endif
