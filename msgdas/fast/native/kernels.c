/* Kernels for maps: n pixels of c channels, the channels of a pixel side by side (channels_last).

   In memory a map is also rows of w = c * 2^i numbers, a multiple of LANES: so vector instructions are full whatever c.
   Each thread takes a part of the rows; what it sums over pixels it sums in an order that depends on the number of
   threads alone.

   Numbers are of type REAL, which the compiler is told: float or double. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILES 24 /* of images that go through a product of matrices together */
#define LANES 32 /* whose sums fit the registers */
#define ROWS 64 /* that a sum in REAL goes over */
#define STRETCH 16384 /* numbers of a map at a time: the memory runs ahead, and they stay in the second cache */
#define BLOCK 2048 /* numbers of two maps, which fit the first cache */

/* One summand, w * (x or norm(x)). Addresses are 0 for what there is not. */
typedef struct {
    int64_t x, of_x; /* the map; where its gradient goes */
    int64_t factors; /* or where its factors go: see Input */
    int64_t stats; /* of a normalised one: c means, then c of 1 / standard deviation */
    int64_t gamma, beta; /* c each */
    int64_t running_mean, running_var; /* c each, to be updated */
    int64_t of_gamma, of_beta;
    double weight, of_weight, momentum, eps;
} Term;

/* What a convolution reads: the map x; its ReLU; or, where x is the gradient of a sum, that of the map `term` that the
   sum normalises: a * x + b * term + d, of which the factors are the rows a, b and d. */
typedef struct {
    const REAL *x, *term, *factors;
    int relu, row;
} Input;

/* Of a convolution: the side of its square kernel, odd. */
typedef struct {
    int32_t kernel, stride, dilation;
} Window;

/* Of a weight: numbers from one output channel to the next, and so on. */
typedef struct {
    int64_t c_out, c_in, down, right;
} Strides;

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

#ifdef __AVX512F__
#define BYTES 64
#else
#define BYTES 32 /* of a vector: what a register holds; compilers split a longer one badly */
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
