/* Part of kernels.c: average pooling and its backward; 3 x 3 with stride 1 and "same" padding that does not count,
   and 2 x 2. The 3 x 3 mean is a sum over three rows and three columns, each divided by how many lie in the map. */

/* 1 / the number of pixels among i - 1, i and i + 1 that lie in a line of n. */
static inline REAL share(int64_t i, int64_t n) { return (REAL)1 / (1 + (i > 0) + (i + 1 < n)); }

/* y = the pooled x, images of h x w; if `turned`, x is the gradient of the output and y that of the input. */
int pool3x3(int64_t images, int64_t h, int64_t w, int c, int turned, const REAL *x, REAL *y) {
    const int most = omp_get_max_threads();
    const int64_t rows = images * h, line = w * c, padded = line + 2 * c;
    REAL *all = calloc((3 + most) * padded, sizeof *all);
    if (!all) return 0;
    REAL *zeros = all, *ones = zeros + padded, *across = ones + padded;
    for (int64_t j = 0; j < line; j++) ones[j] = 1, across[j] = share(j / c, w);
#pragma omp parallel num_threads(most)
    {
        BEGIN
        REAL *sums = across + (1 + i) * padded + c; /* with zeros on both sides */
        for (int64_t r = from; r < to; r++) {
            const int64_t k = r % h;
            const REAL *restrict mid = x + r * line, *restrict above = k ? mid - line : zeros;
            const REAL *restrict below = k + 1 < h ? mid + line : zeros;
            const REAL *restrict before = turned ? across : ones, *restrict after = turned ? ones : across;
            const REAL own = share(k, h), up = turned ? share(k - 1, h) : 1, down = turned ? share(k + 1, h) : 1;
            const REAL middle = turned ? own : 1, all_rows = turned ? 1 : own;
            REAL *restrict out = y + r * line;
            for (int64_t j = 0; j < line; j++)
                sums[j] = (up * above[j] + middle * mid[j] + down * below[j]) * before[j];
            for (int64_t j = 0; j < line; j++)
                out[j] = (sums[j - c] + sums[j] + sums[j + c]) * (all_rows * after[j]);
        }
    }
    free(all);
    return 1;
}

/* y = the mean of 2 x 2 pixels; h and w are even, c is a multiple of 8. If `turned`, x is the gradient of the output
   and y that of the input. */
int pool2x2(int64_t images, int64_t h, int64_t w, int c, int turned, const REAL *x, REAL *y) {
    const int64_t rows = images * (h / 2), line = w * c, half = line / 2;
#pragma omp parallel num_threads(omp_get_max_threads())
    {
        BEGIN
        for (int64_t r = from; r < to; r++)
            for (int64_t k = 0; k < half; k += PIECE) {
                const int64_t small = r * half + k, large = r * 2 * line + k / c * 2 * c + k % c;
                const REAL quarter = 0.25;
                if (turned)
                    AT(y + large) = AT(y + large + c) = AT(y + large + line) = AT(y + large + line + c) =
                        quarter * AT(x + small);
                else
                    AT(y + small) =
                        quarter * (AT(x + large) + AT(x + large + c) + (AT(x + large + line) + AT(x + large + line + c)));
            }
    }
    return 1;
}
