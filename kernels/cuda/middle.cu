// The middle of a network with one hidden layer of ReLU and a softmax, in one pass over the rows: from x W1 to dz1.
// It fuses bias, ReLU, layer 2, softmax, cross entropy, dz2, dW2, db2, db1 and dz1 of fastmlp.network, and is tested
// against them. REAL and ITEM: see real.cuh; UNITS is H and CLASSES is O.
//
// N rows. A block takes tiles of 32 rows through all steps while they sit in shared memory. Where rows are summed a
// thread owns a hidden unit; where units are summed a lane owns a row and each warp takes a share of the units.

#include "real.cuh"

#define TILE 32  // rows, and lanes of a warp
#define THREADS ((UNITS + 31) / 32 * 32)
#define WARPS (THREADS / 32)
#define SHARE ((UNITS + WARPS - 1) / WARPS)  // units that a warp sums
#define PITCH (UNITS | 1)                    // odd: the 32 rows of a column lie in 32 banks

extern "C" __global__ void __launch_bounds__(THREADS) middle(
    ITEM* z1,        // (N, H)  x W1 on entry, dz1 on return
    const REAL* b1,  // (H,)
    const REAL* W2,  // (H, O)
    const REAL* b2,  // (O,)
    const int* y,    // (N,)    0 .. O-1
    REAL* parts,     // (gridDim.y, C)  dW2 (H, O), db2 (O), db1 (H), sum of losses, right answers
    int C, long long N)
{
    __shared__ REAL a[TILE][PITCH];                // relu(z1 + b1)
    __shared__ REAL w[UNITS][CLASSES];             // W2
    __shared__ REAL z2[WARPS][TILE][CLASSES];      // each warp's share of a W2; then, in [0], dz2
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, unit = thread;
    REAL dW2[CLASSES], db1 = 0, db2 = 0, loss = 0, right = 0;
    #pragma unroll
    for (int o = 0; o < CLASSES; o++) dW2[o] = 0;
    for (int i = thread; i < UNITS * CLASSES; i += THREADS) w[i / CLASSES][i % CLASSES] = W2[i];
    const REAL bias = unit < UNITS ? b1[unit] : REAL(0);

    for (long long begin = blockIdx.y * (long long)TILE; begin < N; begin += gridDim.y * (long long)TILE) {
        const int rows = N - begin < TILE ? int(N - begin) : TILE;
        ITEM* z = z1 + begin * UNITS + unit;
        if (unit < UNITS)
            for (int r = 0; r < TILE; r++) {
                const REAL v = r < rows ? number(z[r * UNITS]) + bias : REAL(0);
                a[r][unit] = v < 0 ? REAL(0) : v;  // a NaN is not below 0: it stays
            }
        __syncthreads();

        REAL sum[CLASSES];  // (O,) of row `lane`, over the units of this warp
        #pragma unroll
        for (int o = 0; o < CLASSES; o++) sum[o] = 0;
        for (int h = warp * SHARE; h < (warp + 1) * SHARE && h < UNITS; h++)
            #pragma unroll
            for (int o = 0; o < CLASSES; o++)
                sum[o] += a[lane][h] * w[h][o];
        #pragma unroll
        for (int o = 0; o < CLASSES; o++) z2[warp][lane][o] = sum[o];
        __syncthreads();

        if (warp == 0) {  // softmax and cross entropy of row `lane`
            const int label = lane < rows ? y[begin + lane] : -1;
            REAL top = 0, total = 0, target = 0;
            int best = 0;
            #pragma unroll
            for (int o = 0; o < CLASSES; o++) {
                sum[o] = b2[o];
                for (int k = 0; k < WARPS; k++) sum[o] += z2[k][lane][o];
                if (o == 0 || sum[o] > top) { top = sum[o]; best = o; }
            }
            #pragma unroll
            for (int o = 0; o < CLASSES; o++) {
                if (o == label) target = sum[o] - top;
                sum[o] = exp(sum[o] - top);  // at most 1: cannot overflow
                total += sum[o];
            }
            #pragma unroll
            for (int o = 0; o < CLASSES; o++)
                z2[0][lane][o] = sum[o] / total - (o == label);
            if (lane < rows) {
                loss += log(total) - target;  // total is at least 1: the logarithm is finite
                right += best == label;
            }
        }
        __syncthreads();

        if (unit < UNITS) {
            REAL own[CLASSES];  // W2[unit]
            #pragma unroll
            for (int o = 0; o < CLASSES; o++) own[o] = w[unit][o];
            for (int r = 0; r < rows; r++) {
                const REAL v = a[r][unit];
                REAL d = 0;
                #pragma unroll
                for (int o = 0; o < CLASSES; o++) {
                    d += z2[0][r][o] * own[o];
                    dW2[o] += z2[0][r][o] * v;
                }
                keep(z + r * UNITS, v > 0 ? d : REAL(0));
                db1 += number(z[r * UNITS]);
            }
        }
        if (thread < CLASSES)
            for (int r = 0; r < rows; r++) db2 += z2[0][r][thread];
        __syncthreads();  // the next tile overwrites a and z2
    }

    REAL* slot = parts + (long long)blockIdx.y * C;
    if (unit < UNITS) {
        #pragma unroll
        for (int o = 0; o < CLASSES; o++) slot[unit * CLASSES + o] = dW2[o];
        slot[UNITS * CLASSES + CLASSES + unit] = db1;
    }
    if (thread < CLASSES) slot[UNITS * CLASSES + thread] = db2;
    if (warp == 0) {  // z2 is free again
        z2[0][lane][0] = loss;
        a[lane][0] = right;
    }
    __syncthreads();
    if (thread > 0) return;
    for (int r = 1; r < TILE; r++) {
        loss += z2[0][r][0];
        right += a[r][0];
    }
    slot[UNITS * CLASSES + CLASSES + UNITS] = loss;
    slot[UNITS * CLASSES + CLASSES + UNITS + 1] = right;
}
