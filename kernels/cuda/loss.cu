// The loss, its gradient, and the right answers. REAL, ITEM and Slots: see real.cuh.
//
// N rows, O outputs. Arrays are C-ordered. A block of 8 warps takes tiles of 32 rows, a warp at a time a row; then it
// sums the columns of the tile, which it has just written.

#include "real.cuh"

#define LANES 32   // blockDim.x
#define WARPS 8    // blockDim.y
#define TILE 32    // rows
#define ALL 0xffffffff

inline __device__ REAL warp_sum(REAL v)
{
    for (int lane = LANES / 2; lane > 0; lane /= 2)
        v += __shfl_xor_sync(ALL, v, lane);
    return v;
}

inline __device__ int warp_all(int v)
{
    for (int lane = LANES / 2; lane > 0; lane /= 2)
        v &= __shfl_xor_sync(ALL, v, lane);
    return v;
}

// Calls row(n, loss, right) for every row of the block's share, then leaves the column sums of dz, the sum of the
// losses and the number of right answers in its slot: columns 0 .. O-1, and those `behind` and behind + 1 further on.
template <class Row>
__device__ void rows_and_sums(ITEM* dz, Slots sums, int behind, long long N, int O, Row row)
{
    __shared__ REAL part[2][WARPS];
    REAL loss = 0, right = 0;  // of the rows of a warp, the same in all of its lanes
    const int thread = threadIdx.y * LANES + threadIdx.x;
    for (long long begin = blockIdx.y * (long long)TILE; begin < N; begin += gridDim.y * (long long)TILE) {
        const long long end = begin + TILE < N ? begin + TILE : N;
        for (long long n = begin + threadIdx.y; n < end; n += WARPS)
            row(n, loss, right);
        __syncthreads();
        for (int o = thread; o < O; o += LANES * WARPS) {
            REAL sum = begin == blockIdx.y * (long long)TILE ? REAL(0) : *slot(sums, o);
            for (long long n = begin; n < end; n++)
                sum += number(dz[n * O + o]);
            *slot(sums, o) = sum;
        }
    }
    if (threadIdx.x == 0) {
        part[0][threadIdx.y] = loss;
        part[1][threadIdx.y] = right;
    }
    __syncthreads();
    if (thread >= 2) return;
    for (int k = 1; k < WARPS; k++)
        part[thread][0] += part[thread][k];
    *slot(sums, behind + thread) = part[thread][0];
}

// dz = (softmax(z) - target) * scale, its column sums, the losses and the right answers
extern "C" __global__ void softmax_cross_entropy(
    const REAL* z,          // (N, O)
    const int* y,           // (N,)    0 .. O-1
    const REAL* weight,     // (N,)    where `weighted`
    int weighted,
    REAL smoothing,         // the target is (1 - smoothing) onehot(y) + smoothing / O
    REAL gamma,             // the loss is -(1 - p[y])^gamma log p[y]
    REAL ceiling,           // the most that a row adds to the losses; 0 is none
    REAL scale,
    ITEM* dz,               // (N, O)  may be z itself
    REAL* parts,            // (gridDim.y, C), at the layer's first column
    int C, int behind,      // where loss and right answers go, counted from there
    long long N, int O)
{
    rows_and_sums(dz, Slots{parts, C}, behind, N, O, [=](long long n, REAL& losses, REAL& right) {
        const REAL* from = z + n * O;
        ITEM* to = dz + n * O;
        REAL top = from[0], all = 0;
        int best = 0;
        for (int o = threadIdx.x; o < O; o += LANES) {
            if (from[o] > top) { top = from[o]; best = o; }
        }
        for (int lane = LANES / 2; lane > 0; lane /= 2) {
            const REAL v = __shfl_xor_sync(ALL, top, lane);
            const int o = __shfl_xor_sync(ALL, best, lane);
            if (v > top || (v == top && o < best)) { top = v; best = o; }
        }
        REAL target = from[y[n]] - top, total = 0;
        for (int o = threadIdx.x; o < O; o += LANES) {
            total += exp(from[o] - top);  // at most 1: cannot overflow
            all += from[o] - top;
        }
        total = warp_sum(total);
        if (smoothing > 0) target = (1 - smoothing) * target + smoothing * (warp_sum(all) / O);

        REAL loss = log(total) - target, factor = scale;  // total is at least 1: the logarithm is finite
        if (gamma > 0) {
            const REAL miss = -expm1(-loss), weaker = pow(miss, gamma);
            factor *= weaker + (miss > 0 ? gamma * (1 - miss) * loss * weaker / miss : REAL(0));
            loss *= weaker;
        }
        if (ceiling > 0 && loss > ceiling) loss = ceiling;
        if (weighted) {
            factor *= weight[n];
            loss *= weight[n];
        }
        losses += loss;
        right += best == y[n];

        __syncwarp();  // all lanes have read z before one of them writes there
        const REAL share = factor / total, even = factor * (smoothing / O), own = factor * (1 - smoothing);
        for (int o = threadIdx.x; o < O; o += LANES)
            keep(to + o, exp(from[o] - top) * share - even - (o == y[n] ? own : REAL(0)));
    });
}

enum { LOGISTIC = 1, SQUARED_ERROR, POISSON, ABSOLUTE_ERROR, HUBER, QUANTILE };  // as fastmlp.losses numbers them

inline __device__ REAL sign_of(REAL d) { return d > 0 ? REAL(1) : d < 0 ? REAL(-1) : d; }

// The loss of one z with target y; its slope through `slope`
inline __device__ REAL element(int kind, REAL z, REAL y, REAL c, REAL& slope)
{
    const REAL d = z - y, size = fabs(d), e = exp(kind == POISSON ? z : -fabs(z));
    switch (kind) {
    case LOGISTIC: {
        const REAL loss = (z < 0 ? REAL(0) : z) - y * z + log(1 + e);
        slope = (z < 0 ? e : REAL(1)) / (1 + e) - y;
        return c > 0 && loss > c ? c : loss;  // what is reported has a ceiling, the slope stays what it is
    }
    case SQUARED_ERROR:
        slope = d;
        return REAL(0.5) * d * d;
    case POISSON:
        slope = e - y;
        return (y > 0 ? y * (log(y) - z) : REAL(0)) - y + e;
    case ABSOLUTE_ERROR:
        slope = sign_of(d);
        return size;
    case HUBER: {
        const REAL near = size > c ? c : size;
        slope = d < 0 ? -near : d > 0 ? near : d;
        return near * (size - REAL(0.5) * near);
    }
    default:  // QUANTILE
        slope = d > 0 ? 1 - c : d < 0 ? -c : d;
        return d > 0 ? (1 - c) * d : -c * d;
    }
}

// dz = dloss/dz * scale, its column sums, the losses and the right answers
extern "C" __global__ void elementwise_loss(
    int kind,
    const REAL* z,          // (N, O)
    const REAL* y,          // (N, O)
    const REAL* weight,     // (N,)    where `weighted`
    int weighted,
    const REAL* numbers,    // (O,)    c of each output
    REAL scale,
    ITEM* dz,               // (N, O)  may be z itself
    REAL* parts,            // (gridDim.y, C), at the layer's first column
    int C, int behind,      // where loss and right answers go, counted from there
    long long N, int O)
{
    rows_and_sums(dz, Slots{parts, C}, behind, N, O, [=](long long n, REAL& losses, REAL& right) {
        const REAL factor = weighted ? weight[n] : REAL(1);
        REAL loss = 0;
        int hit = 1;
        for (int o = threadIdx.x; o < O; o += LANES) {
            const REAL v = z[n * O + o], target = y[n * O + o];
            REAL slope;
            loss += element(kind, v, target, numbers[o], slope) * factor;
            hit &= (v > 0) == (target > REAL(0.5));
            keep(dz + n * O + o, slope * factor * scale);
        }
        losses += warp_sum(loss);
        right += warp_all(hit);
    });
}
