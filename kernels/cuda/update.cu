// The end of a step: partial sums added up, then the optimizer's rule. REAL and ITEM: see real.cuh.
//
// P parameters, S arrays of state.

#include "real.cuh"
#include "rules.cuh"

#define COLUMNS 32   // blockDim.x
#define ROWS 8       // blockDim.y
#define THREADS 256  // blockDim.x of the kernels that walk over parameters

// g[where[c]] = scale * the sum of column c of the parts, the last two columns into totals
extern "C" __global__ void finish(
    const REAL* parts,   // (K, C)
    const int* where,    // (C - 2,)  places in g
    REAL scale,
    REAL* g,             // (P,)
    double* totals,      // (2,) or more
    int begin,           // the first column meant: C - 2 where there is no gradient
    int K, int C)
{
    __shared__ double part[ROWS][COLUMNS];  // double for the totals alone: consumer cards have few units for it
    const int c = begin + blockIdx.x * COLUMNS + threadIdx.x;
    const bool total = c >= C - 2;
    REAL sum = 0;
    double exact = 0;
    if (c < C)
        for (int k = threadIdx.y; k < K; k += ROWS) {
            if (total) exact += parts[(long long)k * C + c];
            else sum += parts[(long long)k * C + c];
        }
    part[threadIdx.y][threadIdx.x] = total ? exact : double(sum);
    __syncthreads();
    if (threadIdx.y > 0 || c >= C) return;
    for (int k = 1; k < ROWS; k++) {
        exact += part[k][threadIdx.x];
        sum += REAL(part[k][threadIdx.x]);
    }
    if (total) totals[c - (C - 2)] += exact;
    else g[where[c]] = scale * sum;
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

// totals[2] += rows / 2 * l2 * |weights|^2, the penalty over the rows of a batch
extern "C" __global__ void add_penalty(
    const REAL* parts,    // (K,)
    const REAL* numbers,  // (8,)  of a Step
    double rows, double* totals, int K)
{
    double sum = 0;
    for (int k = 0; k < K; k++)
        sum += parts[k];
    totals[2] += 0.5 * rows * ((const Step*)numbers)->l2 * sum;
}

enum { SGD, MOMENTUM, NESTEROV, ADAM, ADAMW, HEAVY_BALL, HEAVY_BALL_NESTEROV };  // as RULES numbers them

// The rule over all parameters, and their copy as operands of products
extern "C" __global__ void update(
    int rule,
    REAL* w,                // (P,)
    const REAL* g,          // (P,)
    REAL* s,                // (S, P)
    ITEM* copy,             // (P,)       w itself where ITEM is REAL
    const REAL* numbers,    // (8,)       of a Step
    const long long* ends,  // (count,)   see is_weight; count is 0 where l2 and shrink are 0
    int count,
    const REAL* lengths,    // (K,)       sums of squares of g
    REAL longest,           // of g that is let through; 0 lets all
    int K, long long P)
{
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= P) return;
    Step h = *(const Step*)numbers;
    if (count == 0 || !is_weight(ends, count, i)) h.l2 = h.shrink = 0;
    REAL d = g[i];
    if (longest > 0) {
        REAL sum = 0;
        for (int k = 0; k < K; k++)
            sum += lengths[k];
        sum = sqrt(sum);
        if (sum > longest) d *= longest / sum;
    }
    switch (rule) {
    case SGD: rules::sgd(w, d, s, P, i, h); break;
    case MOMENTUM: rules::momentum(w, d, s, P, i, h); break;
    case NESTEROV: rules::nesterov(w, d, s, P, i, h); break;
    case ADAM: rules::adam(w, d, s, P, i, h); break;
    case ADAMW: rules::adamw(w, d, s, P, i, h); break;
    case HEAVY_BALL: rules::heavy_ball(w, d, s, P, i, h); break;
    case HEAVY_BALL_NESTEROV: rules::heavy_ball_nesterov(w, d, s, P, i, h); break;
    }
    keep(copy + i, w[i]);
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
