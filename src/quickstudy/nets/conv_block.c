/* One block of the few-shot convolutional net: 3x3 convolution, batch normalisation, ReLU, 2x2 max pooling; the
 * way back through it, and the way back through that one, as a meta-gradient needs it.
 *
 * Pictures lie as [channel, row, column, example]: the examples of a task, which go the same way, are neighbours,
 * so that every loop is over whole vectors, a shift by one column is a shift by B numbers, and a convolution needs
 * no copy of its input but one with a border of zeros. Built once for float and once for double.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif
typedef REAL real;

#if defined(__AVX512F__)
#define BYTES 64
#define ACROSS 6
#elif defined(__AVX__)
#define BYTES 32
#define ACROSS 3
#else
#define BYTES 16
#define ACROSS 4
#endif
#define LANES ((int)(BYTES / sizeof(real)))
#define DEEP 4 /* output channels that share each load; DEEP * ACROSS sums stay in registers */
#define CACHE 262144 /* bytes */
#define LARGE 67108864 /* bytes of work space that are not kept */
#define TAPS 6 /* in a weight gradient: taps that share each load */
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
#define UNROLL _Pragma("GCC unroll 8")
#define ONCE _Pragma("GCC unroll 1")
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    long B, Ci, Co, H, W;
} Dims;

/* ------------------------------------------------- work space of one task, kept from call to call and lent in turn */

enum { X, G, V, D, WEIGHTS, FULL, ROWS, ROOMS };
typedef struct Space {
    real *at[ROOMS];
    size_t size[ROOMS];
    struct Space *next;
} Space;
static Space *spaces;
static pthread_mutex_t spaces_mutex = PTHREAD_MUTEX_INITIALIZER;

static Space *take_space(void) {
    pthread_mutex_lock(&spaces_mutex);
    Space *s = spaces;
    if (s) spaces = s->next;
    pthread_mutex_unlock(&spaces_mutex);
    return s ? s : calloc(1, sizeof(Space));
}

static void return_space(Space *s) {
    for (int i = 0; i < ROOMS; i++)
        if (s->size[i] * sizeof(real) > LARGE) free(s->at[i]), s->at[i] = NULL, s->size[i] = 0;
    pthread_mutex_lock(&spaces_mutex);
    s->next = spaces;
    spaces = s;
    pthread_mutex_unlock(&spaces_mutex);
}

static real *need(Space *s, int which, size_t count) {
    if (s->size[which] < count) {
        free(s->at[which]);
        s->size[which] = 0;
        if (posix_memalign((void **)&s->at[which], 64, count * sizeof(real))) return s->at[which] = NULL;
        s->size[which] = count;
    }
    return s->at[which];
}

/* A bordered copy: rows of B zeros, W*B numbers, B zeros, and a vector of zeros that a load may run into. */
static long row(const Dims *d) { return (d->W + 2) * d->B + LANES; }
static long plane(const Dims *d) { return (d->H + 2) * row(d); }

static real *bordered(Space *s, const Dims *d, int which, long channels) {
    const long count = channels * plane(d) + ACROSS * LANES + 2 * d->B, n = d->W * d->B;
    real *to = need(s, which, count);
    if (!to) return NULL;
    for (long c = 0; c < channels; c++) {
        real *at = to + c * plane(d);
        memset(at, 0, (row(d) + d->B) * sizeof(real));
        for (long i = 1; i < d->H; i++) memset(at + i * row(d) + d->B + n, 0, (row(d) - n) * sizeof(real));
        memset(at + d->H * row(d) + d->B + n, 0, (2 * row(d) - d->B - n) * sizeof(real));
    }
    memset(to + channels * plane(d), 0, (ACROSS * LANES + 2 * d->B) * sizeof(real));
    return to;
}

static real *with_border(Space *s, const Dims *d, int which, long channels, const real *from) {
    const long n = d->W * d->B;
    real *to = bordered(s, d, which, channels);
    if (to)
        for (long c = 0; c < channels; c++)
            for (long i = 0; i < d->H; i++)
                memcpy(to + c * plane(d) + (i + 1) * row(d) + d->B, from + (c * d->H + i) * n, n * sizeof(real));
    return to;
}

/* ------------------------------------------------------------------------------------------------ convolution */

/* out[DEEP, count numbers of one row] = (or, to add, +=) the sum over input channels and taps. */
INLINE void conv_tile(const real *x, long plane, long row, long B, long Ci, const real *w, real *out, long stride,
                      int deep, long count, int add, const int across) {
    vec sum[DEEP][ACROSS];
    UNROLL for (int c = 0; c < DEEP; c++) UNROLL for (int n = 0; n < across; n++) sum[c][n] = (vec){0};
    for (long ci = 0; ci < Ci; ci++)
        ONCE for (int i = 0; i < 3; i++) {
            const real *at = x + ci * plane + i * row;
            ONCE for (int j = 0; j < 3; j++, at += B, w += DEEP) {
                vec spread[DEEP];
                UNROLL for (int c = 0; c < DEEP; c++) spread[c] = w[c] - (vec){0};
                UNROLL for (int n = 0; n < across; n++) {
                    const vec v = *(const vec *)(at + n * LANES);
                    UNROLL for (int c = 0; c < DEEP; c++) sum[c][n] += v * spread[c];
                }
            }
        }
    UNROLL for (int c = 0; c < DEEP; c++) {
        if (c >= deep) break;
        real *to = out + c * stride;
        UNROLL for (int n = 0; n < across; n++) {
            const long left = count - n * LANES;
            if (left >= LANES)
                *(vec *)(to + n * LANES) = sum[c][n] + (add ? *(vec *)(to + n * LANES) : (vec){0});
            else {
                real last[LANES] = {0};
                if (add) memcpy(last, to + n * LANES, left * sizeof(real));
                *(vec *)last += sum[c][n];
                memcpy(to + n * LANES, last, left * sizeof(real));
            }
        }
    }
}

/* out [Co, H, W, B] = (or, to add, +=) the convolution of a bordered x with w; transposed: with w of [Ci, Co, 3, 3],
 * turned round. */
static __attribute__((noinline)) int conv(Space *s, const Dims *d, const real *x, long Ci, const real *w, long Co,
                                          int transposed, int add, real *out) {
    long tiles = (Co + DEEP - 1) / DEEP, n = d->W * d->B;
    real *packed = need(s, WEIGHTS, tiles * Ci * 9 * DEEP), *to = packed;
    if (!packed) return 1;
    for (long t = 0; t < tiles; t++)
        for (long ci = 0; ci < Ci; ci++)
            for (int k = 0; k < 9; k++)
                for (int c = 0; c < DEEP; c++) {
                    long co = t * DEEP + c;
                    *to++ = co >= Co ? 0 : transposed ? w[(ci * Co + co) * 9 + 8 - k] : w[(co * Ci + ci) * 9 + k];
                }
    for (long i = 0; i < d->H; i++)
        for (long v = 0; v < n; v += ACROSS * LANES) {
            long count = n - v < ACROSS * LANES ? n - v : ACROSS * LANES;
            for (long t = 0; t < tiles; t++) {
                int deep = Co - t * DEEP < DEEP ? Co - t * DEEP : DEEP;
#define TILE(across)                                                                                             \
    conv_tile(x + i * row(d) + v, plane(d), row(d), d->B, Ci, packed + t * Ci * 9 * DEEP,                         \
              out + (t * DEEP * d->H + i) * n + v, d->H * n, deep, count, add, across)
                switch ((count + LANES - 1) / LANES) {
                case 1: TILE(1); break;
                case 2: TILE(2); break;
                case 3: TILE(3); break;
#if ACROSS > 3
                case 4: TILE(4); break;
#endif
#if ACROSS > 4
                case 5: TILE(5); break;
                case 6: TILE(6); break;
#endif
                }
#undef TILE
            }
        }
    return 0;
}

/* sum[DEEP, TAPS]: the products of g's rows with x's rows as each tap shifts them. */
static __attribute__((noinline)) void correlate_tile(const real *const *g, const real *const *x, long rows, long row,
                                                     long count, real *sum) {
    vec s[DEEP][TAPS];
    UNROLL for (int c = 0; c < DEEP; c++) UNROLL for (int k = 0; k < TAPS; k++) s[c][k] = (vec){0};
    ONCE for (long i = 0; i < rows; i++)
        ONCE for (long v = i * row; v < i * row + count; v += LANES) {
            vec gv[DEEP];
            UNROLL for (int c = 0; c < DEEP; c++) gv[c] = *(const vec *)(g[c] + v);
            UNROLL for (int k = 0; k < TAPS; k++) {
                const vec xv = *(const vec *)(x[k] + v);
                UNROLL for (int c = 0; c < DEEP; c++) s[c][k] += gv[c] * xv;
            }
        }
    UNROLL for (int c = 0; c < DEEP; c++) UNROLL for (int k = 0; k < TAPS; k++) {
        const vec lanes = s[c][k];
        real total = 0;
        for (int l = 0; l < LANES; l++) total += lanes[l];
        sum[c * TAPS + k] = total;
    }
}

/* out [Co, Ci, 3, 3] += the gradient of a convolution by its weights: x and g are bordered. Some channels of x at a
 * time, as many as stay in a core's cache while all of g goes by. */
static void correlate(const Dims *d, const real *x, const real *g, real *out) {
    long group = CACHE / (plane(d) * sizeof(real));
    group = group < 1 ? 1 : group > d->Ci ? d->Ci : group;
    for (long from = 0; from < d->Ci; from += group) {
        const long taps = 9 * (d->Ci - from < group ? d->Ci - from : group);
        for (long co = 0; co < d->Co; co += DEEP)
            for (long tap = 0; tap < taps; tap += TAPS) {
                const real *gs[DEEP], *xs[TAPS];
                real sum[DEEP * TAPS];
                for (int c = 0; c < DEEP; c++)
                    gs[c] = g + (co + c < d->Co ? co + c : 0) * plane(d) + row(d) + d->B;
                for (int k = 0; k < TAPS; k++) {
                    const long t = tap + k < taps ? tap + k : 0;
                    xs[k] = x + (from + t / 9) * plane(d) + t % 9 / 3 * row(d) + t % 3 * d->B;
                }
                correlate_tile(gs, xs, d->H, row(d), d->W * d->B, sum);
                for (int c = 0; c < DEEP && co + c < d->Co; c++)
                    for (int k = 0; k < TAPS && tap + k < taps; k++)
                        out[((co + c) * d->Ci + from) * 9 + tap + k] += sum[c * TAPS + k];
            }
    }
}

/* --------------------------------------------------------------- normalisation, pooling and ReLU of one channel */

/* Where a window's largest number is: 1 for its right column, 2 for its lower row; 4 if ReLU lets nothing through.
 * Kept as numbers of the same kind as all others, so that loops stay whole vectors. */
enum { RIGHT = 1, LOWER = 2, DEAD = 4 };

static real total(const real *y, const real *weight, real minus, long n) {
    /* sum of weight * (y - minus); weight NULL: y - minus itself, squared. */
    vec s[4] = {0};
    long p = 0;
    for (; p + 4 * LANES <= n; p += 4 * LANES)
        UNROLL for (int k = 0; k < 4; k++) {
            const vec c = *(const vec *)(y + p + k * LANES) - minus;
            s[k] += (weight ? *(const vec *)(weight + p + k * LANES) : c) * c;
        }
    real sum = 0;
    for (; p < n; p++) sum += (weight ? weight[p] : y[p] - minus) * (y[p] - minus);
    s[0] = (s[0] + s[1]) + (s[2] + s[3]);
    for (int l = 0; l < LANES; l++) sum += s[0][l];
    return sum;
}

static real mean_of(const real *y, long n) {
    vec s[4] = {0};
    long p = 0;
    for (; p + 4 * LANES <= n; p += 4 * LANES) UNROLL for (int k = 0; k < 4; k++) s[k] += *(const vec *)(y + p + k * LANES);
    real sum = 0;
    for (; p < n; p++) sum += y[p];
    s[0] = (s[0] + s[1]) + (s[2] + s[3]);
    for (int l = 0; l < LANES; l++) sum += s[0][l];
    return sum / n;
}

/* Rows of one number for each window, and of one for each of a row's W * B places: copied from the left places to
 * the windows, or from the windows to both places. All else is whole vectors, however few examples there are. */
INLINE void narrow(const Dims *d, const real *restrict row, real *restrict windows) {
    const long B = d->B;
    for (long j = 0; j < d->W / 2; j++, row += 2 * B, windows += B)
        ONCE for (long b = 0; b < B; b++) windows[b] = row[b];
}

INLINE void widen(const Dims *d, const real *restrict windows, real *restrict row) {
    const long B = d->B;
    for (long j = 0; j < d->W / 2; j++, row += 2 * B, windows += B)
        ONCE for (long b = 0; b < B; b++) row[b] = row[B + b] = windows[b];
}

/* Rows that the loops below work in. */
typedef struct {
    real *a, *b, *c, *d, *column; /* column: 0 in a left place, 1 in a right one */
} Rows;

static int rows(Space *s, const Dims *d, Rows *r) {
    const long n = d->W * d->B + d->B;
    real *at = need(s, ROWS, 5 * n);
    if (!at) return 1;
    memset(at, 0, 5 * n * sizeof(real));
    *r = (Rows){at, at + n, at + 2 * n, at + 3 * n, at + 4 * n};
    for (long p = 0; p < n; p++) r->column[p] = p / d->B % 2;
    return 0;
}

/* One channel: h = ReLU(scale * pooled + shift), pooled = (largest of each window - mean) r; of a scale below 0
 * the smallest. */
static void pool(const Dims *d, const Rows *rows, const real *restrict y, real mean, real r, real scale, real shift,
                 real *restrict h, real *restrict pooled, real *restrict chosen) {
    const long n = d->W * d->B, B = d->B, half = d->W / 2 * B;
    const real sign = scale < 0 ? -1 : 1;
    real *restrict most = rows->a, *restrict lower = rows->b, *restrict best = rows->c, *restrict place = rows->d;
    for (long i = 0; i < d->H / 2; i++, h += half, pooled += half, chosen += half) {
        const real *restrict top = y + 2 * i * n, *restrict low = top + n;
        for (long p = 0; p < n; p++) {
            const real a = sign * top[p], b = sign * low[p];
            const int low_wins = !(b <= a); /* of a number and no number the latter, as in torch */
            lower[p] = low_wins && a == a ? LOWER : 0;
            most[p] = low_wins && a == a ? b : a;
        }
        for (long p = 0; p < n; p++) {
            const int right_wins = !(most[p + B] <= most[p]) && most[p] == most[p];
            place[p] = right_wins ? RIGHT + lower[p + B] : lower[p];
            best[p] = right_wins ? most[p + B] : most[p];
        }
        narrow(d, best, pooled);
        narrow(d, place, chosen);
        for (long m = 0; m < half; m++) {
            const real z = (sign * pooled[m] - mean) * r, out = scale * z + shift;
            pooled[m] = z;
            h[m] = out <= 0 ? 0 : out; /* what is not a number stays so */
            chosen[m] = out <= 0 ? chosen[m] + DEAD : chosen[m];
        }
    }
}

/* One channel, the way back: to (bordered) = c0 + c1 y + c2 v, and at the places that were chosen c3 g; without y
 * only the last. */
static void spread(const Dims *d, const Rows *rows, const real *restrict y, const real *restrict v,
                   const real *restrict g, const real *restrict chosen, real c0, real c1, real c2, real c3,
                   real *restrict to) {
    const long n = d->W * d->B, half = d->W / 2 * d->B;
    real *restrict live = rows->a, *restrict wide = rows->b, *restrict place = rows->c;
    const real *restrict column = rows->column;
    to += row(d) + d->B;
    memset(wide, 0, n * sizeof(real)), memset(place, 0, n * sizeof(real));
    for (long i = 0; i < d->H; i++, to += row(d)) {
        const real here = i % 2 ? LOWER : 0;
        if (i / 2 >= d->H / 2)
            memset(wide, 0, n * sizeof(real)); /* a last row that no window holds */
        else if (!(i % 2)) {
            for (long m = 0; m < half; m++) live[m] = chosen[m] < DEAD ? c3 * g[m] : 0;
            widen(d, live, wide);
            widen(d, chosen, place);
            g += half, chosen += half;
        }
        if (y && v)
            for (long p = 0; p < n; p++)
                to[p] = c0 + c1 * y[p] + c2 * v[p] + (place[p] == column[p] + here ? wide[p] : 0);
        else if (y)
            for (long p = 0; p < n; p++) to[p] = c0 + c1 * y[p] + (place[p] == column[p] + here ? wide[p] : 0);
        else
            for (long p = 0; p < n; p++) to[p] = place[p] == column[p] + here ? wide[p] : 0;
        if (y) y += n;
        if (v) v += n;
    }
}

/* One channel, the way back of the way back: of v, the adjoint of y's gradient, the sum of v g is returned, and
 * `out` is the adjoint of g: at the chosen places a (v - v0 - v1 pooled) + p pooled + q. */
static real gather(const Dims *d, const Rows *rows, const real *restrict v, const real *restrict g,
                   const real *restrict pooled, const real *restrict chosen, real a, real v0, real v1, real p_, real q,
                   real *restrict out) {
    const long n = d->W * d->B, B = d->B, half = d->W / 2 * B;
    real *restrict place = rows->a, *restrict side = rows->b, *restrict at = rows->c;
    real sum = 0;
    for (long i = 0; i < d->H / 2; i++, g += half, pooled += half, chosen += half, out += half) {
        const real *restrict top = v + 2 * i * n, *restrict low = top + n;
        for (long m = 0; m < half; m++) out[m] = chosen[m] < DEAD ? chosen[m] : chosen[m] - DEAD;
        widen(d, out, place);
        for (long p = 0; p < n; p++) side[p] = place[p] < LOWER ? top[p] : low[p];
        for (long p = 0; p < n; p++) at[p] = place[p] == RIGHT || place[p] == RIGHT + LOWER ? side[p + B] : side[p];
        narrow(d, at, out);
        for (long m = 0; m < half; m++) {
            const real live = chosen[m] < DEAD ? 1 : 0;
            sum += live * out[m] * g[m];
            out[m] = live * (a * (out[m] - v0 - pooled[m] * v1) + p_ * pooled[m] + q);
        }
    }
    return sum;
}

/* --------------------------------------------------------------------------------- the kernels, each for one task */

/* With its own moments (mean, variance and y are kept), or without any: h = ReLU(scale y + shift), pooled. */
static int forward(Space *s, const Dims *d, double eps, real *const *at) {
    const real *x = at[0], *w = at[1], *scale = at[2], *shift = at[3];
    real *h = at[4], *mean = at[5], *var = at[6], *pooled = at[8], *chosen = at[9];
    const long n = d->H * d->W * d->B, q = (d->H / 2) * (d->W / 2) * d->B;
    const real *xp = with_border(s, d, X, d->Ci, x);
    real *y = at[7] ? at[7] : need(s, FULL, d->Co * n);
    Rows work;
    if (!xp || !y || rows(s, d, &work) || conv(s, d, xp, d->Ci, w, d->Co, 0, 0, y)) return 1;
    for (long c = 0; c < d->Co; c++) {
        real mu = 0, r = 1;
        if (mean) {
            mean[c] = mu = mean_of(y + c * n, n);
            var[c] = total(y + c * n, NULL, mu, n) / n;
            r = 1 / sqrt(var[c] + eps);
        }
        pool(d, &work, y + c * n, mu, r, scale[c], shift[c], h + c * q, pooled + c * q, chosen + c * q);
    }
    return 0;
}

/* What the way back was given: the gradient by h, the block's inputs, and what the way there kept; without moments
 * y, mean and var are NULL. */
typedef struct {
    const real *gh, *x, *w, *scale, *mean, *var, *y, *pooled, *chosen;
} Kept;

static Kept kept(real *const *at) { return (Kept){at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]}; }

static const real *channel(const real *array, long c, long size) { return array ? array + c * size : NULL; }

/* The gradient by y, bordered; and the gradients by scale and shift, S1 = sum of g * pooled and S0 = sum of g.
 * gmean and gvar are the gradients by the moments themselves, or NULL. */
static real *back_to_y(Space *s, const Dims *d, double eps, const Kept *k, const real *gmean, const real *gvar,
                       real *S1, real *S0) {
    const long n = d->H * d->W * d->B, q = (d->H / 2) * (d->W / 2) * d->B;
    real *dy = bordered(s, d, D, d->Co);
    Rows work;
    if (!dy || rows(s, d, &work)) return NULL;
    for (long c = 0; c < d->Co; c++) {
        const real *g = k->gh + c * q, *p = k->pooled + c * q, *chosen = k->chosen + c * q;
        const real r = k->var ? 1 / sqrt(k->var[c] + eps) : 1, a = k->scale[c] * r;
        real s0 = 0, s1 = 0, c0 = 0, c1 = 0;
        for (long m = 0; m < q; m++) {
            const real z = chosen[m] < DEAD ? g[m] : 0;
            s0 += z, s1 += z * p[m];
        }
        if (k->y) {
            c1 = (-a * r * s1 + (gvar ? 2 * gvar[c] : 0)) / n;
            c0 = (-a * s0 + (gmean ? gmean[c] : 0)) / n - c1 * k->mean[c];
        }
        spread(d, &work, channel(k->y, c, n), NULL, g, chosen, c0, c1, 0, a, dy + c * plane(d));
        S0[c] = s0, S1[c] = s1;
    }
    return dy;
}

static int backward(Space *s, const Dims *d, double eps, real *const *at) {
    const Kept k = kept(at);
    real *dx = at[11], *dw = at[12], *dscale = at[13], *dshift = at[14];
    const real *xp = with_border(s, d, X, d->Ci, k.x);
    const real *dy = back_to_y(s, d, eps, &k, at[9], at[10], dscale, dshift);
    if (!xp || !dy) return 1;
    memset(dw, 0, d->Co * d->Ci * 9 * sizeof(real));
    correlate(d, xp, dy, dw);
    return dx && conv(s, d, dy, d->Co, k.w, d->Ci, 1, 0, dx);
}

/* The way back through `backward` (of h alone): from adjoints of dx (or NULL), dw, dscale and dshift to those of its
 * inputs.
 *
 * With yh = (y - mean) r, n numbers a channel, g the gradient that ReLU lets through and v the adjoint of dy,
 *     dy = scale r (g at the chosen - S0 / n - yh S1 / n),    D = sum v g - S0 mean(v) - S1 mean(v yh),
 *     phi = sum v dy + p S1 + q S0 = scale r D + p S1 + q S0,
 * which is differentiated by g, by scale and by y, the last through yh and through r. Without moments yh = y, r = 1,
 * and all means are dropped.
 */
static int twice(Space *s, const Dims *d, double eps, real *const *at) {
    const Kept k = kept(at);
    const real *ax = at[9], *aw = at[10], *ascale = at[11], *ashift = at[12];
    real *dgh = at[13], *dx = at[14], *dw = at[15], *dscale = at[16], *S1 = at[17], *S0 = at[18];
    const long n = d->H * d->W * d->B, q = (d->H / 2) * (d->W / 2) * d->B;
    const real *xp = with_border(s, d, X, d->Ci, k.x), *axp = ax ? with_border(s, d, G, d->Ci, ax) : NULL;
    const real *dy = back_to_y(s, d, eps, &k, NULL, NULL, S1, S0);
    real *v = need(s, FULL, d->Co * n), *ay = bordered(s, d, V, d->Co);
    Rows work;
    if (!xp || (ax && !axp) || !dy || !v || !ay || rows(s, d, &work)) return 1;
    if (conv(s, d, xp, d->Ci, aw, d->Co, 0, 0, v)) return 1;
    if (ax && conv(s, d, axp, d->Ci, k.w, d->Co, 0, 1, v)) return 1;
    for (long c = 0; c < d->Co; c++) {
        const real *vc = v + c * n, *yc = channel(k.y, c, n), *g = k.gh + c * q, *chosen = k.chosen + c * q;
        const real r = yc ? 1 / sqrt(k.var[c] + eps) : 1, mu = yc ? k.mean[c] : 0;
        const real a = k.scale[c] * r, s0 = S0[c], s1 = S1[c];
        const real v0 = yc ? mean_of(vc, n) : 0, v1 = yc ? total(yc, vc, mu, n) / n * r : 0; /* mean(v), mean(v yh) */
        const real sum =
            gather(d, &work, vc, g, k.pooled + c * q, chosen, a, v0, v1, ascale[c], ashift[c], dgh + c * q);
        const real D_ = sum - s0 * v0 - s1 * v1;
        /* phi by yh, U = e v + f g at the chosen; u0 = mean(U), u1 = mean(U yh). */
        const real e = -a * s1 / n, f = ascale[c] - a * v1, u0 = e * v0 + f * s0 / n, u1 = e * v1 + f * s1 / n;
        const real c1 = -r * r * (u1 + a * D_ / n), c0 = -r * u0 - c1 * mu;
        spread(d, &work, yc, vc, g, chosen, c0, c1, r * e, r * f, ay + c * plane(d));
        dscale[c] = r * D_;
    }
    memset(dw, 0, d->Co * d->Ci * 9 * sizeof(real));
    correlate(d, xp, ay, dw);
    if (ax) correlate(d, axp, dy, dw);
    if (!dx) return 0;
    return conv(s, d, ay, d->Co, k.w, d->Ci, 1, 0, dx) || conv(s, d, dy, d->Co, aw, d->Ci, 1, 1, dx);
}

/* -------------------------------------------------------------------------------------------- all tasks of a batch */

typedef int Kernel(Space *, const Dims *, double, real *const *);
enum { ARRAYS = 19 };
static const struct {
    Kernel *run;
    int arrays;
} kernels[] = {{forward, 10}, {backward, 15}, {twice, 19}};

typedef struct Batch {
    int kernel;
    const Dims *d;
    double number;
    real *const *at;
    const long *stride;
    long tasks, next; /* the first that nobody took */
    int failed, wanted, helpers; /* workers that may still come, and that are here */
    struct Batch *after;
} Batch;

static void serve(Batch *b) {
    Space *s = take_space();
    for (long t; s && (t = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED)) < b->tasks;) {
        real *at[ARRAYS];
        for (int i = 0; i < kernels[b->kernel].arrays; i++) at[i] = b->at[i] ? b->at[i] + t * b->stride[i] : NULL;
        if (kernels[b->kernel].run(s, b->d, b->number, at)) __atomic_store_n(&b->failed, 1, __ATOMIC_RELAXED);
    }
    if (s) return_space(s);
}

/* Threads that wait for batches to help with: started when they are first wanted, and kept. */
static pthread_mutex_t pool_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_available = PTHREAD_COND_INITIALIZER, batch_done = PTHREAD_COND_INITIALIZER;
static Batch *batches;
static int workers;

static void *worker(void *none) {
    (void)none;
    pthread_mutex_lock(&pool_mutex);
    for (;;) {
        Batch *b = batches;
        while (b && !b->wanted) b = b->after;
        if (!b) {
            pthread_cond_wait(&work_available, &pool_mutex);
            continue;
        }
        b->wanted--, b->helpers++;
        pthread_mutex_unlock(&pool_mutex);
        serve(b);
        pthread_mutex_lock(&pool_mutex);
        if (!--b->helpers) pthread_cond_broadcast(&batch_done);
    }
    return NULL;
}

/* A forked process has no workers, and a mutex that some thread held would stay locked in it. */
static void reset_after_fork(void) {
    const pthread_mutex_t closed = PTHREAD_MUTEX_INITIALIZER;
    const pthread_cond_t silent = PTHREAD_COND_INITIALIZER;
    spaces_mutex = pool_mutex = closed, work_available = batch_done = silent;
    batches = NULL, workers = 0;
}

static void register_fork(void) { pthread_atfork(NULL, NULL, reset_after_fork); }

static void start_workers(int count) {
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the program */
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    while (workers < count && !pthread_create(&thread, &attr, worker, NULL)) workers++;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Run a kernel for each task, several threads a task each. `stride`: how far a task's array is from the one before,
 * 0 where all share one. Whether there was too little memory. */
int run(int kernel, const Dims *d, double number, real *const *at, const long *stride, long tasks, long threads) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork);
    Batch b = {kernel, d, number, at, stride, tasks, 0, 0, 0, 0, NULL};
    const int others = (threads < tasks ? threads : tasks) - 1;
    if (others > 0) {
        pthread_mutex_lock(&pool_mutex);
        start_workers(others);
        b.wanted = others;
        b.after = batches, batches = &b;
        pthread_cond_broadcast(&work_available);
        pthread_mutex_unlock(&pool_mutex);
    }
    serve(&b);
    if (others > 0) {
        pthread_mutex_lock(&pool_mutex);
        Batch **link = &batches;
        while (*link != &b) link = &(*link)->after;
        *link = b.after;
        while (b.helpers) pthread_cond_wait(&batch_done, &pool_mutex);
        pthread_mutex_unlock(&pool_mutex);
    }
    return b.failed || b.next < b.tasks;
}
