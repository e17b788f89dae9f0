// What the tensor-core kernels share. They take a net with one hidden layer, ReLU and softmax, uint8 rows, and float16
// operands with float32 sums. Sizes are constants of the compilation: see tensor_tiles.py, which chooses them.
//
// N rows of a batch, I inputs, H hidden units, O classes, P parameters: W1 (I, H), b1 (H,), W2 (H, O), b2 (O,), one
// after the other. All arrays are C-ordered.
#pragma once
#include "primitives.cuh"

enum : int {
    I = INPUTS, H = HIDDEN, O = CLASSES,
    BYTES = (I + 15) / 16 * 16,  // of a row of X; what is behind the inputs may be anything
    WIDTH = UNITS,               // H rounded up: columns of dz1 and of W1 as float16, 0 behind the H-th
    HEAD = I * H,                // of the gradient, what tensor_gradient sums: dW1
    REST = H + H * O + O,        // and what tensor_forward does: db1, dW2, db2,
    TAIL = REST + 2,             // with the sum of losses and the number of right answers behind them
    P = HEAD + REST
};

// Bytes from row to row of an array in shared memory: an odd number of 16 bytes, so that eight rows' 16 bytes at one
// column lie in different banks.
__host__ __device__ constexpr int spread(int bytes) { return ((bytes + 15) / 16 | 1) * 16; }

__host__ __device__ constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

// The row of X that is the n-th of the batch
__device__ inline long long row_of(const int* index, int n)
{
    return index ? index[n] : n;
}

// Fragments B of TILES neighbouring (16, 8) matrices of halves in shared memory. `row` is what row_for_lane gives.
template <int TILES> __device__ inline void load_columns(unsigned (&b)[TILES][2], const unsigned char* row)
{
#pragma unroll
    for (int j = 0; j + 1 < TILES; j += 2) {
        unsigned r[4];
        load_transposed_4(r, row + 16 * j);
        b[j][0] = r[0], b[j][1] = r[1], b[j + 1][0] = r[2], b[j + 1][1] = r[3];
    }
    if (TILES % 2) load_transposed_2(b[TILES - 1][0], b[TILES - 1][1], row + 16 * (TILES - 1));
}

// Of two (16, 8) matrices side by side, each two of (8, 8), the address that this lane gives for their rows
__device__ inline const unsigned char* row_for_lane(const unsigned char* matrix, int pitch)
{
    const int lane = threadIdx.x % 32;
    return matrix + (lane % 16) * pitch + lane / 16 * 16;
}
