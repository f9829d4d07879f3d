/* Kernels for feature maps: n pixels of c channels, the channels of a pixel side by side (channels_last).

   A kernel may also read a map as rows of w = c * 2^i numbers, where w is a multiple of LANES, so that vector
   instructions are full whatever c is. Each thread takes a part of the rows. Sums over pixels are formed in an order
   that depends on the number of threads only.

   REAL, the type of the numbers, is float or double: the compiler defines it. A kernel returns 1, or 0 if there was
   no memory. An address of 0 means that there is no such map. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILES 24 /* of images that share one product of matrices */
#define LANES 32 /* numbers whose sums fit the registers */
#define ROWS 64 /* summed in REAL; beyond that in double */
#define STRETCH 16384 /* numbers of a map at a time: they stay in the L2 cache, and prefetching keeps up */
#define BLOCK 2048 /* numbers of two maps that fit the L1 cache */

/* One summand of a sum: weight * x, or weight * norm(x). An address is 0 if there is no such thing. */
typedef struct {
    int64_t x, of_x; /* the map; where to write its gradient */
    int64_t factors; /* or where to write that gradient's factors: see Input */
    int64_t stats; /* if normalised: c means, then c values of 1 / standard deviation */
    int64_t gamma, beta; /* c each */
    int64_t running_mean, running_var; /* c each, updated in place */
    int64_t of_gamma, of_beta;
    double weight, of_weight, momentum, eps;
} Term;

/* What a convolution reads: the map x, or its ReLU. In a backward x may be the gradient of a sum with BatchNorm; then
   it reads the gradient of the summand `term`, which is a * x + b * term + d; factors are the rows a, b and d. */
typedef struct {
    const REAL *x, *term, *factors;
    int relu, row;
} Input;

/* The window of a convolution; kernel is the odd side of the square. */
typedef struct {
    int32_t kernel, stride, dilation;
} Window;

/* Strides of a weight: numbers from one output channel to the next, and so on. */
typedef struct {
    int64_t c_out, c_in, down, right;
} Strides;

/* An image with zeros around it, so that no tap has to check where the map ends. In a frame that is read with stride
   s, a row holds pixels 0, s, 2s, ..., then 1, s + 1, 2s + 1, ..., so that what a tap reads for a row of the output
   is contiguous. */
typedef struct {
    int64_t pad, line, size; /* pixels around the image; numbers per row; numbers in all */
} Frame;

static Frame frame_of(Window o, int64_t h, int64_t w, int c) {
    int64_t pad = o.dilation * (o.kernel / 2), line = (w + 2 * pad + o.stride) / o.stride * o.stride * c;
    return (Frame){pad, line, (h + 2 * pad) * line};
}

/* Numbers per row: the smallest c * 2^i that LANES divides. */
static int row(int c) {
    int w = c;
    while (w % LANES) w *= 2;
    return w;
}

#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32 /* per vector: what a register holds; compilers split longer ones badly */
#endif
#define VECTOR (int)(BYTES / sizeof(REAL))
typedef REAL Vector __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));

static void repeat(REAL *row, int c, int w) {
    for (int j = c; j < w; j++) row[j] = row[j - c];
}

static double all(const double *parts, int threads, int64_t stride, int c, int w, int j) {
    double sum = 0;
    for (int i = 0; i < threads; i++)
        for (int l = j; l < w; l += c) sum += parts[i * stride + l];
    return sum;
}

#define MAP(address) ((REAL *)(intptr_t)(address))
#define BEGIN                                                                                                          \
    int i = omp_get_thread_num(), threads = omp_get_num_threads();                                                     \
    int64_t from = rows * i / threads, to = rows * (i + 1) / threads;

#include "sums.c"
#include "depthwise.c"
#include "matrices.c"
#include "pool.c"
#include "patches.c"
#include "winograd.c"
