/* Part of kernels.c: sums of maps, some of them normalised by batch statistics, and their backward, in few passes
   over memory. Sums over pixels are in REAL within ROWS rows and in double beyond. */

/* With g: sums += g, products += g * (x - centre). Without g: sums += x - centre, products += (x - centre)^2. */
static inline void sum_lanes(const REAL *restrict g, const REAL *restrict x, const REAL *restrict centre, int64_t rows,
                             int w, double *restrict sums, double *restrict products) {
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

static void sum_rows(const REAL *g, const REAL *x, const REAL *centre, int64_t from, int64_t to, int w, double *sums,
                     double *products) {
    for (int64_t r = from; r < to; r += ROWS)
        for (int j = 0; j < w; j += LANES)
            sum_lanes(g ? g + r * w + j : 0, x + r * w + j, centre + j, to - r < ROWS ? to - r : ROWS, w, sums + j,
                      products + j);
}

/* y = a * x + b, or without b: y += a * x. Rows of w. */
static inline void scaled(REAL *restrict y, const REAL *restrict x, const REAL *restrict a, const REAL *restrict b,
                          int64_t rows, int w) {
    if (b)
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < w; j++) y[r * w + j] = a[j] * x[r * w + j] + b[j];
    else
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < w; j++) y[r * w + j] += a[j] * x[r * w + j];
}

/* y = a1 * x1 + a2 * x2 + b */
static inline void combined(REAL *restrict y, const REAL *restrict x1, const REAL *restrict a1, const REAL *restrict x2,
                            const REAL *restrict a2, const REAL *restrict b, int64_t rows, int w) {
    for (int64_t r = 0; r < rows; r++)
        for (int j = 0; j < w; j++) y[r * w + j] = a1[j] * x1[r * w + j] + a2[j] * x2[r * w + j] + b[j];
}

/* Mean and deviation of the term, from each thread's sums and products of sum_rows (2 rows of w, around centres). */
static void find_statistics(Term *t, const REAL *centres, const double *parts, int threads, int64_t stride, int64_t n,
                            int c, int w) {
    REAL *running_mean = MAP(t->running_mean), *running_var = MAP(t->running_var);
    for (int j = 0; j < c; j++) {
        double off = all(parts, threads, stride, c, w, j) / n;
        double var = all(parts + w, threads, stride, c, w, j) / n - off * off, mean = centres[j] + off;
        if (var < 0) var = 0;
        MAP(t->stats)[j] = mean;
        MAP(t->stats)[c + j] = 1 / sqrt(var + t->eps);
        if (running_mean) {
            running_mean[j] += t->momentum * (mean - running_mean[j]);
            running_var[j] += t->momentum * (var * n / (n - 1) - running_var[j]);
        }
    }
}

/* Write the term as a * x + shift; the shift is added to the other terms'. */
static void find_factors(const Term *t, REAL *a, REAL *shift, int c, int w) {
    for (int j = 0; j < c; j++) {
        double scale = t->weight;
        if (t->stats) {
            if (t->beta) shift[j] += scale * MAP(t->beta)[j];
            scale *= (double)MAP(t->stats)[c + j] * (t->gamma ? MAP(t->gamma)[j] : 1);
            shift[j] -= scale * MAP(t->stats)[j];
        }
        a[j] = scale;
    }
    repeat(a, c, w);
}

/* The gradients of gamma, beta and weight, and a, b, d of the gradient of x, a * g + b * x + d; from the sums of g
   and of g * (x - centre). */
static void find_gradients(Term *t, REAL *a, REAL *b, REAL *d, const REAL *centres, const double *parts, int threads,
                           int64_t stride, int64_t n, int c, int w) {
    t->of_weight = 0;
    for (int j = 0; j < c; j++) {
        double sum = all(parts, threads, stride, c, w, j);
        double product = all(parts + w, threads, stride, c, w, j);
        double gamma = t->gamma ? MAP(t->gamma)[j] : 1, scale = t->weight * gamma;
        if (t->stats) {
            double invstd = MAP(t->stats)[c + j];
            product *= invstd; /* now of g with the normalised map */
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
    repeat(a, c, w);
    repeat(b, c, w);
    repeat(d, c, w);
    if (t->factors) {
        memcpy(MAP(t->factors), a, w * sizeof *a);
        memcpy(MAP(t->factors) + w, b, w * sizeof *b);
        memcpy(MAP(t->factors) + 2 * w, d, w * sizeof *d);
    }
}

/* out = the sum of the terms, unless out is 0. Writes statistics and updates running ones. */
int forward(int64_t n, int c, int count, Term *terms, REAL *out) {
    const int w = row(c), most = omp_get_max_threads();
    const int64_t rows = n * c / w, stride = 2 * w * count, stretch = STRETCH / w > ROWS ? STRETCH / w : ROWS;
    double *parts = calloc(most * stride, sizeof *parts);
    REAL *a = malloc((2 * count + 1) * w * sizeof *a), *centres = a + count * w, *shift = centres + count * w;
    if (!parts || !a) return free(parts), free(a), 0;
#pragma omp parallel num_threads(most)
    {
        BEGIN
#pragma omp single
        for (int k = 0; k < count; k++)
            if (terms[k].stats) { /* sum around the first pixel, so that a mean far from zero costs no digits */
                memcpy(centres + k * w, MAP(terms[k].x), c * sizeof(REAL));
                repeat(centres + k * w, c, w);
            }
        for (int k = 0; k < count; k++)
            if (terms[k].stats)
                sum_rows(0, MAP(terms[k].x), centres + k * w, from, to, w, parts + i * stride + 2 * k * w,
                         parts + i * stride + (2 * k + 1) * w);
#pragma omp barrier
#pragma omp single
        {
            memset(shift, 0, w * sizeof *shift);
            for (int k = 0; k < count; k++) {
                if (terms[k].stats)
                    find_statistics(terms + k, centres + k * w, parts + 2 * k * w, threads, stride, n, c, w);
                find_factors(terms + k, a + k * w, shift, c, w);
            }
            repeat(shift, c, w);
        }
        for (int64_t r = out ? from : to; r < to; r += stretch) {
            int64_t block = to - r < stretch ? to - r : stretch, at = r * w;
            if (count == 1) scaled(out + at, MAP(terms[0].x) + at, a, shift, block, w);
            else combined(out + at, MAP(terms[0].x) + at, a, MAP(terms[1].x) + at, a + w, shift, block, w);
            for (int k = 2; k < count; k++) scaled(out + at, MAP(terms[k].x) + at, a + k * w, 0, block, w);
        }
    }
    free(parts);
    free(a);
    return 1;
}

/* From g, the gradient of out: of_x or factors, of_gamma and of_beta where asked for, and of_weight of every term. */
int backward(int64_t n, int c, int count, Term *terms, const REAL *g) {
    const int w = row(c), most = omp_get_max_threads();
    const int64_t rows = n * c / w, stride = 2 * w * count, stretch = STRETCH / w > ROWS ? STRETCH / w : ROWS;
    double *parts = calloc(most * stride, sizeof *parts);
    REAL *a = calloc(4 * count * w, sizeof *a), *b = a + count * w, *d = b + count * w, *centres = d + count * w;
    if (!parts || !a) return free(parts), free(a), 0;
    for (int k = 0; k < count; k++)
        if (terms[k].stats) {
            memcpy(centres + k * w, MAP(terms[k].stats), c * sizeof(REAL));
            repeat(centres + k * w, c, w);
        }
#pragma omp parallel num_threads(most)
    {
        BEGIN
        for (int64_t r = from; r < to; r += stretch) /* all terms of a stretch, so that g is read from memory once */
            for (int k = 0; k < count; k++)
                if (terms[k].x)
                    sum_rows(g, MAP(terms[k].x), centres + k * w, r, to - r < stretch ? to : r + stretch, w,
                             parts + i * stride + 2 * k * w, parts + i * stride + (2 * k + 1) * w);
#pragma omp barrier
#pragma omp single
        for (int k = 0; k < count; k++)
            find_gradients(terms + k, a + k * w, b + k * w, d + k * w, centres + k * w, parts + 2 * k * w, threads,
                           stride, n, c, w);
        for (int64_t r = from; r < to; r += stretch) {
            int64_t block = to - r < stretch ? to - r : stretch, at = r * w;
            for (int k = 0; k < count; k++) {
                Term *t = terms + k;
                if (t->of_x && t->stats)
                    combined(MAP(t->of_x) + at, g + at, a + k * w, MAP(t->x) + at, b + k * w, d + k * w, block, w);
                else if (t->of_x) scaled(MAP(t->of_x) + at, g + at, a + k * w, d + k * w, block, w);
            }
        }
    }
    free(parts);
    free(a);
    return 1;
}
