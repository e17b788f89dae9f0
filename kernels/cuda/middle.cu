// The middle of a network whose last hidden layer is ReLU and whose loss is the softmax's, in one pass over the rows:
// from that layer's z, before its bias, to its dz. It fuses bias, ReLU, the last layer, softmax, cross entropy, and the
// way back to dz of fastmlp.network, and is tested against them. REAL and ITEM: see real.cuh; UNITS is H, CLASSES is O.
//
// N rows. A block takes tiles of TILE rows through all steps while they sit in shared memory. Where rows are summed a
// thread owns a hidden unit; where units are summed a lane owns a row, with 32 / TILE lanes and all warps sharing the
// units. What a block reads from global memory it asks for long before it needs it: first all of V and its first tile,
// then, while a tile is at work, the next one.

#include "real.cuh"
#include "early.cuh"

#define THREADS ((UNITS + 31) / 32 * 32)
#define WARPS (THREADS / 32)
#define SPLIT (32 / TILE)                              // lanes of a warp that share a row
#define SHARE ((UNITS - 1) / (WARPS * SPLIT) + 1)      // units that a lane sums
#define PITCH (((UNITS - 1) / SPLIT + 1 | 1) * SPLIT)  // SPLIT times an odd number: a warp reads a from 32 banks
#define WIDE ((CLASSES + 3) / 4 * 4)                   // classes are read four at a time
#define ALL 0xffffffff

// The blocks that a processor has room for when a thread has the registers that it needs: left alone, the compiler
// takes more for some sizes, and for others keeps numbers in memory to take fewer.
#define REGISTERS ((48 + TILE + 3 * CLASSES) * sizeof(REAL) / 4)
#define BLOCKS (65536 / ((THREADS < 128 ? 128 : THREADS) * REGISTERS))

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) middle(
    ITEM* z,         // (N, H)  h W on entry, dz on return; h and W of the last hidden layer
    const REAL* b,   // (H,)
    const REAL* V,   // (H, O)  weights of the last layer
    const REAL* c,   // (O,)    biases of the last layer
    const int* y,    // (N,)    0 .. O-1
    REAL* parts,     // (gridDim.y, C)  dV transposed (O, H), db (H), dc (O), sum of losses, right answers
    int C, long long N)
{
    __shared__ REAL a[TILE][PITCH];                // relu(z + b)
    alignas(16) __shared__ REAL v[UNITS][WIDE];    // V
    __shared__ REAL shares[WARPS][CLASSES][TILE];  // each warp's share of a V
    alignas(16) __shared__ REAL d[TILE][WIDE];     // a V + c; then its dz
    __shared__ REAL totals[TILE][CLASSES + 2];     // of the same row of all tiles: dc, the losses, the right answers
    __shared__ REAL last_bias[CLASSES];            // c
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, unit = thread;
    const long long step = gridDim.y * (long long)TILE;
    REAL dV[CLASSES], db = 0;
#pragma unroll
    for (int o = 0; o < CLASSES; o++) dV[o] = 0;
    if (thread < TILE)
        for (int o = 0; o < CLASSES + 2; o++) totals[thread][o] = 0;

    ITEM coming[TILE];  // z of this unit in the rows of the next tile
    int coming_rows, coming_label;
    const auto ask_for = [&](long long begin) {
        coming_rows = N - begin < TILE ? int(N - begin) : TILE;  // none where the tiles are at their end
        const ITEM* from = z + begin * UNITS + unit;
#pragma unroll
        for (int r = 0; r < TILE; r++)
            if (r < coming_rows && unit < UNITS) coming[r] = from[r * UNITS];
        coming_label = thread < coming_rows ? y[begin + thread] : -1;
    };
    REAL own[CLASSES];
#pragma unroll
    for (int k = 0; k < CLASSES; k++) {
        const int i = k * THREADS + thread;
        own[k] = i < UNITS * CLASSES ? read_anew(V + i) : REAL(0);
    }
    const REAL bias = unit < UNITS ? read_anew(b + unit) : REAL(0);
    if (thread < CLASSES) last_bias[thread] = read_anew(c + thread);
    wait_for_last_kernel();  // the product that makes z; the parameters have long been there
    long long begin = blockIdx.y * (long long)TILE;
    ask_for(begin);
#pragma unroll
    for (int k = 0; k < CLASSES; k++) {
        const int i = k * THREADS + thread;
        if (i < UNITS * CLASSES) v[i / CLASSES][i % CLASSES] = own[k];
    }

    for (; begin < N; begin += step) {
        const int rows = coming_rows, label = coming_label;
        if (unit < UNITS)
#pragma unroll
            for (int r = 0; r < TILE; r++) {
                const REAL value = r < rows ? number(coming[r]) + bias : REAL(0);
                a[r][unit] = value < 0 ? REAL(0) : value;  // a NaN is not below 0: it stays
            }
        __syncthreads();
        ask_for(begin + step);

        REAL sum[CLASSES];  // of a V in row lane % TILE, over the units of this lane
#pragma unroll
        for (int o = 0; o < CLASSES; o++) sum[o] = 0;
#pragma unroll 2  // more would spill registers
        for (int i = 0; i < SHARE; i++) {
            const int h = (i * WARPS + warp) * SPLIT + lane / TILE;
            if (UNITS % (WARPS * SPLIT) == 0 || h < UNITS)
#pragma unroll
                for (int o = 0; o < CLASSES; o++) sum[o] += a[lane % TILE][h] * v[h][o];
        }
#pragma unroll
        for (int o = 0; o < CLASSES; o++) {
            for (int lanes = TILE; lanes < 32; lanes *= 2) sum[o] += __shfl_xor_sync(ALL, sum[o], lanes);
            if (lane < TILE) shares[warp][o][lane] = sum[o];
        }
        __syncthreads();

        for (int i = thread; i < TILE * CLASSES; i += THREADS) {
            REAL logit = last_bias[i / TILE];
#pragma unroll
            for (int k = 0; k < WARPS; k++) logit += shares[k][i / TILE][i % TILE];
            d[i % TILE][i / TILE] = logit;
        }
        __syncthreads();

        if (thread < TILE) {  // softmax and cross entropy of row `thread`
            REAL top = 0, total = 0, target = 0;
            int best = 0;
#pragma unroll
            for (int o = 0; o < CLASSES; o++) {
                sum[o] = d[thread][o];
                if (o == 0 || sum[o] > top) { top = sum[o]; best = o; }
            }
#pragma unroll
            for (int o = 0; o < CLASSES; o++) {
                if (o == label) target = sum[o] - top;
                sum[o] = exp(sum[o] - top);  // at most 1: cannot overflow
                total += sum[o];
            }
            const REAL factor = 1 / total;
#pragma unroll
            for (int o = 0; o < CLASSES; o++) {
                sum[o] = thread < rows ? sum[o] * factor - (o == label) : REAL(0);
                d[thread][o] = sum[o];
                totals[thread][o] += sum[o];
            }
            if (thread < rows) {
                totals[thread][CLASSES] += log(total) - target;  // total is at least 1: the logarithm is finite
                totals[thread][CLASSES + 1] += best == label;
            }
        }
        __syncthreads();

        if (unit < UNITS) {
#pragma unroll
            for (int o = 0; o < CLASSES; o++) own[o] = v[unit][o];
            ITEM* to = z + begin * UNITS + unit;
#pragma unroll 4
            for (int r = 0; r < TILE; r++) {
                const REAL value = a[r][unit];
                REAL back = 0;
#pragma unroll
                for (int o = 0; o < CLASSES; o++) {
                    back += d[r][o] * own[o];
                    dV[o] += d[r][o] * value;
                }
                ITEM kept;
                keep(&kept, value > 0 ? back : REAL(0));
                if (r < rows) to[r * UNITS] = kept;
                db += number(kept);
            }
        }
    }  // no barrier: the next tile overwrites of a what this thread alone has just read, and d behind two barriers

    REAL* slot = parts + (long long)blockIdx.y * C;
    if (unit < UNITS) {
#pragma unroll
        for (int o = 0; o < CLASSES; o++) slot[o * UNITS + unit] = dV[o];
        slot[CLASSES * UNITS + unit] = db;
    }
    for (int o = thread; o < CLASSES + 2; o += THREADS) {
        REAL total = 0;
#pragma unroll
        for (int r = 0; r < TILE; r++) total += totals[r][o];
        slot[(CLASSES + 1) * UNITS + o] = total;
    }
}
