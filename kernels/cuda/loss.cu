// The loss, its gradient, and the right answers. REAL, ITEM and Slots: see real.cuh.
//
// N rows, O outputs. Arrays are C-ordered. A block takes tiles of blockDim.y rows, all at once: 8 threads a row, so
// that ten classes keep most of them busy, and a warp has four rows.

#include "real.cuh"

#define LANES 8         // blockDim.x: threads of a row
#define MOST_WARPS 8    // of a block: 32 rows
#define COLUMNS 256     // whose sums a block adds up at a time
#define ALL 0xffffffff

// Over the threads of a row
inline __device__ REAL row_sum(REAL v)
{
    for (int lane = LANES / 2; lane > 0; lane /= 2)
        v += __shfl_xor_sync(ALL, v, lane);
    return v;
}

inline __device__ int row_all(int v)
{
    for (int lane = LANES / 2; lane > 0; lane /= 2)
        v &= __shfl_xor_sync(ALL, v, lane);
    return v;
}

// Over the rows of a warp
inline __device__ REAL column_sum(REAL v)
{
    for (int lane = 16; lane >= LANES; lane /= 2)
        v += __shfl_xor_sync(ALL, v, lane);
    return v;
}

// Calls row(n, loss, right), which sets what row n adds to the losses and the right answers, and returns dz(o) of the
// row. Leaves the column sums of dz, the sum of the losses and the number of right answers in the block's slot: columns
// 0 .. O-1, and those `behind` and behind + 1 further on.
template <class Row>
__device__ void rows_and_sums(ITEM* dz, Slots sums, int behind, long long N, int O, Row row)
{
    __shared__ REAL part[MOST_WARPS][COLUMNS];
    REAL losses = 0, rights = 0;  // of this thread's rows, the same in all threads of a row
    const int thread = threadIdx.y * LANES + threadIdx.x, threads = blockDim.y * LANES;
    const int warp = thread / 32, warps = threads / 32, lane = thread % 32;
    const long long start = blockIdx.y * (long long)blockDim.y, step = gridDim.y * (long long)blockDim.y;
    for (long long begin = start; begin < N; begin += step) {
        const long long n = begin + threadIdx.y;
        const bool there = n < N;  // where it is not, the last row stands in, and nothing is kept
        REAL loss, right;
        const auto slope = row(there ? n : N - 1, loss, right);
        if (there) {
            losses += loss;
            rights += right;
        }
        for (int first = 0; first < O; first += COLUMNS) {
            const int end = first + COLUMNS < O ? first + COLUMNS : O;
            for (int next = first; next < end; next += LANES) {
                const int o = next + threadIdx.x;
                REAL v = 0;
                if (there && o < end) {
                    ITEM kept;
                    keep(&kept, slope(o));
                    dz[n * O + o] = kept;
                    v = number(kept);
                }
                v = column_sum(v);
                if (lane < LANES && o < end) part[warp][o - first] = v;
            }
            __syncthreads();
            for (int o = first + thread; o < end; o += threads) {
                REAL sum = begin == start ? REAL(0) : *slot(sums, o);
                for (int k = 0; k < warps; k++)
                    sum += part[k][o - first];
                *slot(sums, o) = sum;
            }
            __syncthreads();  // the next columns overwrite part
        }
    }
    losses = column_sum(losses);
    rights = column_sum(rights);
    if (lane == 0) {
        part[warp][0] = losses;
        part[warp][1] = rights;
    }
    __syncthreads();
    if (thread >= 2) return;
    for (int k = 1; k < warps; k++)
        part[0][thread] += part[k][thread];
    *slot(sums, behind + thread) = part[0][thread];
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
    rows_and_sums(dz, Slots{parts, C}, behind, N, O, [=](long long n, REAL& loss, REAL& right) {
        const REAL* from = z + n * O;
        const int label = y[n];
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
        REAL target = from[label] - top, total = 0;
        for (int o = threadIdx.x; o < O; o += LANES) {
            total += exp(from[o] - top);  // at most 1: cannot overflow
            all += from[o] - top;
        }
        total = row_sum(total);
        if (smoothing > 0) target = (1 - smoothing) * target + smoothing * (row_sum(all) / O);

        loss = log(total) - target;  // total is at least 1: the logarithm is finite
        REAL factor = scale;
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
        right = best == label;

        __syncwarp();  // all lanes have read z before one of them writes there
        const REAL share = factor / total, even = factor * (smoothing / O), own = factor * (1 - smoothing);
        return [=](int o) { return exp(from[o] - top) * share - even - (o == label ? own : REAL(0)); };
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
    rows_and_sums(dz, Slots{parts, C}, behind, N, O, [=](long long n, REAL& loss, REAL& right) {
        const REAL factor = weighted ? weight[n] : REAL(1);
        REAL sum = 0, unused;
        int hit = 1;
        for (int o = threadIdx.x; o < O; o += LANES) {
            const REAL v = z[n * O + o], target = y[n * O + o];
            sum += element(kind, v, target, numbers[o], unused) * factor;
            hit &= (v > 0) == (target > REAL(0.5));
        }
        loss = row_sum(sum);
        right = row_all(hit);
        return [=](int o) {
            REAL slope;
            element(kind, z[n * O + o], y[n * O + o], numbers[o], slope);
            return slope * factor * scale;
        };
    });
}
