// The end of a step: partial sums added up, then the optimizer's rule. REAL and ITEM: see real.cuh.
//
// P parameters, S arrays of state.

#include "real.cuh"
#include "early.cuh"
#include "epoch.cuh"
#include "rules.cuh"

#define COLUMNS 32   // blockDim.x of the kernels that sum columns
#define ROWS 32      // blockDim.y
#define AHEAD 8      // numbers that a thread of them asks for at once
#define EACH 4       // parameters of a thread of `update`, which all are read before one is written
#define THREADS 256  // blockDim.x of the kernels that walk over parameters
#define TOTALS 3     // of a step: the sum of losses, the right answers, the penalties

// The sum of column c of the parts, for the threads of the block's first row. A thread reads AHEAD numbers before it
// adds one: there are few threads, and each would wait for every number.
template <class Sum>
__device__ Sum column_sum(const REAL* parts, int c, int K, int C)
{
    __shared__ Sum part[ROWS][COLUMNS];
    Sum sum = 0;
    if (c < C)
        for (int first = threadIdx.y; first < K; first += ROWS * AHEAD) {
            const REAL* from = parts + (long long)first * C + c;
            REAL v[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                v[j] = first + j * ROWS < K ? from[(long long)j * ROWS * C] : REAL(0);
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                sum += v[j];
        }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    if (threadIdx.y == 0)
#pragma unroll
        for (int k = 0; k < ROWS; k++)
            sum += part[k][threadIdx.x];
    return sum;
}

// totals (TOTALS,), of a step, += the last two columns of the parts
__device__ void add_totals(double* totals, const REAL* parts, int K, int C)
{
    const int c = C - 2 + threadIdx.x;
    const double sum = column_sum<double>(parts, c, K, C);  // of these alone: consumer cards have few units for it
    if (threadIdx.y == 0 && c < C) totals[threadIdx.x] += sum;
}

// g[where[c]] = scale * the sum of column c of the parts, the last two columns into the step's totals: the last block's
extern "C" __global__ void __launch_bounds__(ROWS * COLUMNS) finish(
    const REAL* parts,   // (K, C)
    const int* where,    // (C - 2,)  places in g
    REAL scale,
    REAL* g,             // (P,)
    double* totals,      // (steps, TOTALS)
    const int* turn,     // (2,)      see epoch.cuh
    int step,            //           this step, counted from turn
    int K, int C)
{
    if (blockIdx.x == gridDim.x - 1) {
        add_totals(totals + TOTALS * (turn[STEPS_TAKEN] + step), parts, K, C);
    } else {
        const int c = blockIdx.x * COLUMNS + threadIdx.x, place = c < C - 2 ? where[c] : 0;
        const REAL sum = column_sum<REAL>(parts, c, K, C);
        if (threadIdx.y == 0 && c < C - 2) g[place] = scale * sum;
    }
}

// Whether parameter i is a weight: `ends` holds where each layer's weights, then its biases end
inline __device__ bool is_weight(const long long* ends, int count, long long i)
{
    int k = 0;
    while (k < count && i >= ends[k]) k++;
    return k % 2 == 0;
}

// out[k] = the sum of squares of the k-th share of v, of weights alone where count > 0
extern "C" __global__ void squares(
    const REAL* v,          // (P,)
    const long long* ends,  // (count,)
    int count,
    REAL* out,              // (gridDim.x,)
    long long P)
{
    __shared__ REAL part[THREADS];
    REAL sum = 0;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < P; i += gridDim.x * (long long)THREADS)
        if (count == 0 || is_weight(ends, count, i)) sum += v[i] * v[i];
    part[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

// The step's third total += rows / 2 * l2 * |weights|^2, the penalty over the rows of a batch
extern "C" __global__ void add_penalty(
    const REAL* parts,  // (K,)
    const REAL* table,  // (steps, 8)  a Step each
    double* totals,     // (steps, TOTALS)
    const int* turn,    // (2,)        see epoch.cuh
    int step,           //             this step, counted from turn
    double rows, int K)
{
    const int now = turn[STEPS_TAKEN] + step;
    double sum = 0;
    for (int k = 0; k < K; k++)
        sum += parts[k];
    totals[TOTALS * now + 2] += 0.5 * rows * ((const Step*)table)[now].l2 * sum;
}

enum { SGD, MOMENTUM, NESTEROV, ADAM, ADAMW, HEAVY_BALL, HEAVY_BALL_NESTEROV };  // as RULES numbers them

// A parameter and its state, in registers
struct Own { REAL w, s[2]; };

inline __device__ Own read_own(int rule, const REAL* w, const REAL* s, long long P, long long i)
{
    Own own;
    own.w = w[i];
    if (rule != SGD) own.s[0] = s[i];
    if (rule == ADAM || rule == ADAMW) own.s[1] = s[P + i];
    return own;
}

// The step of parameter i with gradient d, and its copy as an operand of products
__device__ void move(int rule, Own own, REAL* w, REAL d, REAL* s, ITEM* copy, long long P, long long i, const Step& h)
{
    switch (rule) {
    case SGD: rules::sgd(&own.w, d, own.s, 1, 0, h); break;
    case MOMENTUM: rules::momentum(&own.w, d, own.s, 1, 0, h); break;
    case NESTEROV: rules::nesterov(&own.w, d, own.s, 1, 0, h); break;
    case ADAM: rules::adam(&own.w, d, own.s, 1, 0, h); break;
    case ADAMW: rules::adamw(&own.w, d, own.s, 1, 0, h); break;
    case HEAVY_BALL: rules::heavy_ball(&own.w, d, own.s, 1, 0, h); break;
    case HEAVY_BALL_NESTEROV: rules::heavy_ball_nesterov(&own.w, d, own.s, 1, 0, h); break;
    }
    w[i] = own.w;
    if (rule != SGD) s[i] = own.s[0];
    if (rule == ADAM || rule == ADAMW) s[P + i] = own.s[1];
    keep(copy + i, own.w);
}

// The numbers of a step for a weight or for a bias, which is not held small
inline __device__ Step numbers_of(const REAL* table, int now, bool held)
{
    Step h = ((const Step*)table)[now];
    if (!held) h.l2 = h.shrink = 0;
    return h;
}

// The step of all parameters. The blocks behind those of the sums and of the totals take the weights before the `end`-th
// parameter, whose gradients g holds; those of the others, which `finish` would put there, are sums of columns.
extern "C" __global__ void __launch_bounds__(ROWS * COLUMNS) update(
    int rule,
    REAL* w,                // (P,)
    const REAL* g,          // (P,)
    REAL* s,                // (S, P)
    ITEM* copy,             // (P,)       w itself where ITEM is REAL
    const REAL* table,      // (steps, 8) a Step each
    const int* turn,        // (2,)       see epoch.cuh
    int step,               //            this step, counted from turn
    const long long* ends,  // (count,)   see is_weight
    int count, long long end,
    const REAL* parts,      // (K, C)
    const int* where,       // (C - 2,)   parameters
    REAL scale,
    double* totals,         // (steps, TOTALS)
    int K, int C, long long P)
{
    const int now = turn[STEPS_TAKEN] + step, sums = (C - 2 + COLUMNS - 1) / COLUMNS, block = blockIdx.x;
    wait_for_last_kernel();
    start_next_kernel();
    if (block < sums) {
        const int c = block * COLUMNS + threadIdx.x, i = c < C - 2 ? where[c] : 0;
        const Own own = read_own(rule, w, s, P, i);
        const REAL d = scale * column_sum<REAL>(parts, c, K, C);
        if (threadIdx.y == 0 && c < C - 2)
            move(rule, own, w, d, s, copy, P, i, numbers_of(table, now, is_weight(ends, count, i)));
    } else if (block == sums) {
        add_totals(totals + TOTALS * now, parts, K, C);
    } else {
        const int mine = threadIdx.y * COLUMNS + threadIdx.x;
        const long long first = (block - sums - 1) * (long long)(EACH * ROWS * COLUMNS) + mine;
        const Step numbers = numbers_of(table, now, true);
        Own own[EACH];
        REAL d[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const long long i = first + k * ROWS * COLUMNS;
            if (i < end) own[k] = read_own(rule, w, s, P, i), d[k] = g[i];
        }
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const long long i = first + k * ROWS * COLUMNS;
            if (i < end && is_weight(ends, count, i)) move(rule, own[k], w, d[k], s, copy, P, i, numbers);
        }
    }
}

// The step of all parameters, by the gradient g, made shorter where it is too long
extern "C" __global__ void update_clipped(
    int rule,
    REAL* w,                // (P,)
    const REAL* g,          // (P,)
    REAL* s,                // (S, P)
    ITEM* copy,             // (P,)       w itself where ITEM is REAL
    const REAL* table,      // (steps, 8) a Step each
    const int* turn,        // (2,)       see epoch.cuh
    int step,               //            this step, counted from turn
    const long long* ends,  // (count,)   see is_weight
    int count,
    const REAL* lengths,    // (K,)       sums of squares of g
    REAL longest,           //            of g that is let through
    int K, long long P)
{
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= P) return;
    REAL sum = 0;
    for (int k = 0; k < K; k++)
        sum += lengths[k];
    const REAL length = sqrt(sum), d = length > longest ? g[i] * (longest / length) : g[i];
    const Own own = read_own(rule, w, s, P, i);
    move(rule, own, w, d, s, copy, P, i, numbers_of(table, turn[STEPS_TAKEN] + step, is_weight(ends, count, i)));
}

// copy = w
extern "C" __global__ void convert(
    const REAL* w,  // (P,)
    ITEM* copy,     // (P,)
    long long P)
{
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < P) keep(copy + i, w[i]);
}
