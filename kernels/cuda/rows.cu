// The rows of a step, as the first product takes them. REAL and ITEM: see real.cuh.
//
// M rows of data, V visits of an epoch, N rows of the step, I inputs, Y numbers of a target. Arrays are C-ordered.
#include "real.cuh"

#define NUMBERS 8  // of an optimizers.Step

// Opens a step: whatever is another in each step of an epoch goes to a fixed place, where the kernels after this one
// find it. One block: all of it reads `step` before `step` moves on.
extern "C" __global__ void begin(
    const int* order,               // (V,)    rows of the data in the order of visits, where `ordered`
    const REAL* weights,            // (V,)    in the order of visits, where `weighted`
    const REAL* table,              // (steps, NUMBERS)
    const unsigned long long* keys, // (steps,)
    int* step,                      // (1,)    steps taken in this epoch
    long long batch,                // rows of a step, the last may have fewer
    int ordered, int weighted,
    int* index,                     // (N,)
    REAL* weight,                   // (N,)
    REAL* numbers,                  // (NUMBERS,)
    unsigned long long* key,        // (1,)
    long long N)
{
    const long long now = *step, first = now * batch;
    for (long long n = threadIdx.x; n < N; n += blockDim.x) {
        index[n] = ordered ? order[first + n] : int(first + n);
        if (weighted) weight[n] = weights[first + n];
    }
    if (threadIdx.x < NUMBERS) numbers[threadIdx.x] = table[now * NUMBERS + threadIdx.x];
    __syncthreads();
    if (threadIdx.x > 0) return;
    *key = keys[now];
    *step = int(now + 1);
}

// x[n] = X[row], to_y[n] = y[row] for row = index[n]. A block is a tile of blockDim.y rows; the blockDim.x threads of a
// row walk along it side by side.
template <class From, class Label>
__device__ void gather_rows(
    const From* X, const Label* y, const int* index, int placed, ITEM* x, Label* to_y, long long N, int I, int Y)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;
    const long long row = index[n];
    const From* from = X + (placed ? n : row) * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x)
        keep(x + n * I + i, number(from[i]));
    for (int i = threadIdx.x; i < Y; i += blockDim.x)
        to_y[n * Y + i] = y[row * Y + i];
}

extern "C" __global__ void gather_uint8_codes(
    const unsigned char* X,  // (M, I)  or, where `placed`, the rows of the step in their order, (N, I)
    const int* y,            // (M, Y)
    const int* index,        // (N,)    0 .. M-1
    int placed,
    ITEM* x,                 // (N, I)  pixels stay whole numbers 0 .. 255
    int* to_y,               // (N, Y)
    long long N, int I, int Y)
{
    gather_rows(X, y, index, placed, x, to_y, N, I, Y);
}

extern "C" __global__ void gather_uint8_targets(
    const unsigned char* X, const REAL* y, const int* index, int placed, ITEM* x, REAL* to_y, long long N, int I, int Y)
{
    gather_rows(X, y, index, placed, x, to_y, N, I, Y);
}

extern "C" __global__ void gather_real_codes(
    const REAL* X, const int* y, const int* index, int placed, ITEM* x, int* to_y, long long N, int I, int Y)
{
    gather_rows(X, y, index, placed, x, to_y, N, I, Y);
}

extern "C" __global__ void gather_real_targets(
    const REAL* X, const REAL* y, const int* index, int placed, ITEM* x, REAL* to_y, long long N, int I, int Y)
{
    gather_rows(X, y, index, placed, x, to_y, N, I, Y);
}
