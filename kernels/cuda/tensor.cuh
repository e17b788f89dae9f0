// What the tensor-core kernels share. They take a net with one hidden layer, ReLU and softmax, uint8 rows, and float16
// operands with float32 sums. Sizes are constants of the compilation: see tensor_tiles.py, which chooses them.
//
// N rows of a batch, I inputs, H hidden units, O classes, P parameters: W1 (I, H), b1 (H,), W2 (H, O), b2 (O,), one
// after the other. All arrays are C-ordered.
//
// A warp has 16 hidden units, and a block all of them: two (16, 8) tiles of sums a warp. Small batches wait for memory,
// not for arithmetic: what counts is that many warps wait at once. So inputs (tensor_forward) and rows (tensor_step) are
// shared among blocks as well, of which the last to be done adds up what the others have.
//
// The two kernels of a step take turns. On cards that can the next one starts while the one before is at work: it reads
// what that one does not write, then waits until all blocks of that one have arrived where their results are there. To
// wait for the kernel's end would take longer than a kernel's work does. Each lets the next one start only once it has met
// the one before: so no more than two are at work, and what tensor_step reads of the step before it is there. What
// another kernel writes is read past the cache of the multiprocessor, which two kernels may share.
#pragma once
#include "primitives.cuh"
#include "epoch.cuh"

enum : int {
    I = INPUTS, H = HIDDEN, O = CLASSES,
    BYTES = (I + 15) / 16 * 16,  // of a row of X; what is behind the inputs may be anything
    WIDTH = (H + 15) / 16 * 16,  // columns of dz1 and of W1 as float16, rows of W2: 0 behind the H-th
    HEAD = I * H,                // of the gradient, what tensor_step sums: dW1
    REST = H + H * O + O,        // and what tensor_forward does: db1, dW2, db2,
    TAIL = REST + 2,             // with the sum of losses and the number of right answers behind them
    P = HEAD + REST,
    THREADS = 2 * WIDTH,         // of a block: 32 for 16 units
    BLOCKS = THREADS > 320 ? 1 : 2  // that a multiprocessor has registers for: one of each kernel
};

// Sums of a thread: the fragments C of two tiles side by side, of a warp's 16 units
struct Sums { float of[2][4]; };

// c += a b, b two (16, 8) matrices of halves side by side in shared memory. `row` is what row_for_lane gives.
__device__ inline void multiply_add_pair(Sums& c, const unsigned (&a)[4], const unsigned char* row)
{
    unsigned b[4];
    load_transposed_4(b, row);
    multiply_add(c.of[0], a, b[0], b[1]);
    multiply_add(c.of[1], a, b[2], b[3]);
}

// Counters (4,) by which kernels meet: of tensor_forward, then of tensor_step, in even and in odd steps each.
enum : int { FORWARD = 0, STEP = 2, ALL = 1 << 20 };

// Called by all threads of one block of each blockIdx.x, when what it writes is written. All of them together count ALL,
// however many they are.
__device__ inline void arrive(int* counter)
{
    __syncthreads();
    if (threadIdx.x > 0) return;
    __threadfence();
    atomicAdd(counter, blockIdx.x > 0 ? 1 : ALL + 1 - (int)gridDim.x);
}

// Waits until all have arrived at a counter. All threads of a block call it.
__device__ inline void wait_for_all(const int* counter)
{
    if (threadIdx.x == 0) wait_until(counter, ALL);
    __syncthreads();
}

struct __align__(16) Four { float of[4]; };

// Called by all threads of the blocks that share a sum, gridDim.y of each blockIdx.x. Leaves this block's part; in the
// last of them `sum` is the sum of all parts then, in the order of the shares. The others get false, and are done.
// parts (gridDim.x, gridDim.y, 2, THREADS) of four, tickets (gridDim.x,): 0 before and afterwards.
template <int AT_ONCE>  // parts that a thread reads at once
__device__ inline bool add_shares(Sums& sum, float* parts, int* tickets)
{
    Four* part = (Four*)parts + (long long)blockIdx.x * gridDim.y * 2 * THREADS + threadIdx.x;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const float* c = sum.of[j];
        part[(blockIdx.y * 2 + j) * THREADS] = Four{c[0], c[1], c[2], c[3]};
    }
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
        __threadfence();  // what the block wrote is there for all
        last = atomicAdd(tickets + blockIdx.x, 1) == (int)gridDim.y - 1;
        if (last) tickets[blockIdx.x] = 0;
        __threadfence();  // and what the others wrote for this one
    }
    if (!__syncthreads_or(last)) return false;
    sum = Sums{};
    for (int begin = 0; begin < (int)gridDim.y; begin += AT_ONCE) {
        Four found[AT_ONCE][2];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
            for (int j = 0; j < 2; j++)
                if (begin + k < (int)gridDim.y) found[k][j] = part[((begin + k) * 2 + j) * THREADS];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (begin + k < (int)gridDim.y)
#pragma unroll
                for (int q = 0; q < 8; q++) sum.of[q / 4][q % 4] += found[k][q / 4].of[q % 4];
    }
    return true;
}
