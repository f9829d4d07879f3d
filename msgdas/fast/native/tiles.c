/* Part of winograd.c, included once per vector width: T is the vector, NAME(f) the name of f for its width. Functions
   work on channels from `begin` on, before `end`, of c. */

#define LOAD(address) (*(const T *)(address))
#define STORE(address, x) (*(T *)(address) = (x))
#define STEP (int)(sizeof(T) / sizeof(REAL))

/* Values at points of both signs, from the even and odd parts: p and q of the nearer points, r and s of the others.
   */
INLINE void NAME(mirror)(T *y, T p, T q, T r, T s) {
    y[1] = p + q;
    y[2] = p - q;
    y[3] = r + s;
    y[4] = r - s;
}

/* y = B^T x: 6 of 6 */
INLINE void NAME(by_bt)(T *y, const T *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    T p = x[4] - 2 * x[2], q = a * (x[3] - 2 * x[1]);
    T r = x[4] - (REAL)0.5 * x[2], s = b * (x[3] - (REAL)0.5 * x[1]);
    y[0] = x[0] - (REAL)2.5 * x[2] + x[4];
    y[5] = x[1] - (REAL)2.5 * x[3] + x[5];
    NAME(mirror)(y, p, q, r, s);
}

/* y = A^T x: 4 of 6 */
INLINE void NAME(by_at)(T *y, const T *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    T p = x[1] + x[2], q = a * (x[1] - x[2]), r = x[3] + x[4], s = b * (x[3] - x[4]);
    y[0] = x[0] + p + r;
    y[1] = q + s;
    y[2] = (REAL)0.5 * p + 2 * r;
    y[3] = (REAL)0.5 * q + 2 * s + x[5];
}

/* y = A x: 6 of 4 */
INLINE void NAME(by_a)(T *y, const T *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2;
    T p = x[0] + (REAL)0.5 * x[2], q = a * (x[1] + (REAL)0.5 * x[3]);
    T r = x[0] + 2 * x[2], s = b * (x[1] + 2 * x[3]);
    y[0] = x[0];
    y[5] = x[3];
    NAME(mirror)(y, p, q, r, s);
}

/* y = G x: 6 of 3 */
INLINE void NAME(by_g)(T *y, const T *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2, m = -2. / 3, n = 1. / 6;
    T p = m * (x[0] + (REAL)0.5 * x[2]), q = m * a * x[1], r = n * (x[0] + 2 * x[2]), s = n * b * x[1];
    y[0] = x[0];
    y[5] = x[2];
    NAME(mirror)(y, p, q, r, s);
}

/* y = G^T x: 3 of 6 */
INLINE void NAME(by_gt)(T *y, const T *x) {
    const REAL a = M_SQRT1_2, b = M_SQRT2, m = -2. / 3, n = 1. / 6;
    T p = m * (x[1] + x[2]), q = m * (x[1] - x[2]), r = n * (x[3] + x[4]), s = n * (x[3] - x[4]);
    y[0] = x[0] + p + r;
    y[1] = a * q + b * s;
    y[2] = (REAL)0.5 * p + 2 * r + x[5];
}

/* Apply a transform to both sides of a square: x is from x from, y is to x to. */
#define BOTH(transform, from, to, y, x)                                                                                \
    do {                                                                                                               \
        T half[from][to], line[from];                                                                                  \
        for (int k = 0; k < from; k++) NAME(transform)(half[k], x[k]);                                                 \
        for (int r = 0; r < to; r++) {                                                                                 \
            for (int k = 0; k < from; k++) line[k] = half[k][r];                                                       \
            NAME(transform)(y[r], line);                                                                               \
        }                                                                                                              \
    } while (0)

/* z = the transformed 3 x 3 taps of a weight. */
INLINE void NAME(transform_weight)(T z[6][6], T taps[3][3]) { BOTH(by_g, 3, 6, z, taps); }

/* taps = a weight's gradient, from z, the gradient of the transformed weight. */
INLINE void NAME(transform_back)(T taps[3][3], T z[6][6]) { BOTH(by_gt, 6, 3, taps, z); }

/* v[place][tile][channel] = the transformed tiles of a frame. What two neighbours share is transformed once. */
INLINE void NAME(transform_input)(REAL *restrict v, int64_t place, const REAL *restrict frame, int64_t line,
                                  int64_t tiles, int begin, int end, int c) {
    for (int j = begin; j < end; j += STEP) {
        T columns[6][6], x[6], z[6];
        for (int64_t t = 0; t < tiles; t++) {
            const REAL *at = frame + 4 * t * c + j;
            for (int k = t ? 2 : 0; k < 6; k++) {
                for (int r = 0; r < 6; r++) x[r] = LOAD(at + r * line + k * c);
                NAME(by_bt)(columns[k], x);
            }
            for (int r = 0; r < 6; r++) {
                for (int k = 0; k < 6; k++) x[k] = columns[k][r];
                NAME(by_bt)(z, x);
                for (int k = 0; k < 6; k++) STORE(v + (r * 6 + k) * place + t * c + j, z[k]);
                columns[0][r] = columns[4][r];
                columns[1][r] = columns[5][r];
            }
        }
    }
}

/* The same for a gradient of the output. */
INLINE void NAME(transform_output)(REAL *restrict v, int64_t place, const REAL *restrict frame, int64_t line,
                                   int64_t tiles, int begin, int end, int c) {
    for (int64_t t = 0; t < tiles; t++)
        for (int j = begin; j < end; j += STEP) {
            T x[4][4], z[6][6];
            for (int k = 0; k < 4; k++)
                for (int r = 0; r < 4; r++) x[k][r] = LOAD(frame + r * line + (4 * t + k) * c + j);
            BOTH(by_a, 4, 6, z, x);
            for (int r = 0; r < 6; r++)
                for (int k = 0; k < 6; k++) STORE(v + (r * 6 + k) * place + t * c + j, z[r][k]);
        }
}

/* y = tiles of the output, from m[place][tile][channel]: h rows of w pixels; the last tile may reach beyond them. The
   output is zero where the map `of`, if any, is not positive. */
INLINE void NAME(put)(REAL *restrict y, const REAL *restrict of, const REAL *restrict m, int64_t place, int64_t h,
                      int64_t w, int64_t tiles, int begin, int end, int c) {
    for (int64_t t = 0; t < tiles; t++)
        for (int j = begin; j < end; j += STEP) {
            T x[6][6], z[4][4];
            for (int k = 0; k < 6; k++)
                for (int r = 0; r < 6; r++) x[k][r] = LOAD(m + (r * 6 + k) * place + t * c + j);
            BOTH(by_at, 6, 4, z, x);
            const int64_t at = 4 * t * c + j, down = h < 4 ? h : 4, right = w - 4 * t < 4 ? w - 4 * t : 4;
            for (int r = 0; r < down; r++)
                for (int k = 0; k < right; k++) {
                    const int64_t to = at + (r * w + k) * c;
                    STORE(y + to, of ? WHERE_POSITIVE(LOAD(of + to), z[r][k]) : z[r][k]);
                }
        }
}

#undef BOTH
#undef STEP
#undef STORE
#undef LOAD
#undef NAME
#undef T
