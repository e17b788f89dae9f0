// The rows of a step, as the first product takes them. REAL and ITEM: see real.cuh.
//
// M rows of data, V visits of an epoch, N rows of the step, I inputs, Y numbers of a target. Arrays are C-ordered.
#include "real.cuh"
#include "elements.cuh"
#include "early.cuh"
#include "epoch.cuh"

// turn goes on by so many steps and rows.
extern "C" __global__ void go_on(
    int* turn,  // (2,)  see epoch.cuh
    int steps, int rows)
{
    turn[STEPS_TAKEN] += steps;
    turn[ROWS_VISITED] += rows;
}

// to[n] = from[row(n)]
template <class From, class To, class Row>
__device__ void pick(long long block, const From* from, To* to, long long N, int W, Row row)
{
    each(block, N, W,
        [=](long long, long long n, int w) { return number(from[row(n) * W + w]); },
        [=](long long j, auto v) { keep(to + j, v); });
}

// x[n] = X[row], to_y[n] = y[row], to_weight[n] = weights[visit] for the row that is the n-th visit from `visit` on:
// first the blocks that x takes, then y's, then the weights'
template <class From, class Label>
__device__ void gather_rows(
    const From* X, const Label* y, const REAL* weights, const int* order, const int* turn, long long visit, int placed,
    ITEM* x, Label* to_y, REAL* to_weight, long long N, int I, int Y)
{
    // Nothing that it reads or writes is in the hands of the kernel before, an update; but who comes after waits for both.
    start_next_kernel();
    const long long begin = turn[ROWS_VISITED] + visit, blocks = blocks_of(N * I), more = blocks + blocks_of(N * Y);
    const auto row = [=](long long n) { return row_of(order, begin + n); };
    if (blockIdx.x < blocks && placed) pick(blockIdx.x, X, x, N, I, [](long long n) { return n; });
    else if (blockIdx.x < blocks) pick(blockIdx.x, X, x, N, I, row);
    else if (blockIdx.x < more) pick(blockIdx.x - blocks, y, to_y, N, Y, row);
    else pick(blockIdx.x - more, weights, to_weight, N, 1, [=](long long n) { return begin + n; });
    wait_for_last_kernel();
}

extern "C" __global__ void gather_uint8_codes(
    const unsigned char* X,  // (M, I)  or, where `placed`, the rows of the step in their order, (N, I)
    const int* y,            // (M, Y)
    const REAL* weights,     // (V,)    in the order of visits
    const int* order,        // (V,)    0 .. M-1; null: rows are visited as they stand
    const int* turn,         // (2,)    see epoch.cuh
    long long visit,         //         the first, counted from turn
    int placed,
    ITEM* x,                 // (N, I)  pixels stay whole numbers 0 .. 255
    int* to_y,               // (N, Y)
    REAL* to_weight,         // (N,)    where there are blocks for it
    long long N, int I, int Y)
{
    gather_rows(X, y, weights, order, turn, visit, placed, x, to_y, to_weight, N, I, Y);
}

extern "C" __global__ void gather_uint8_targets(
    const unsigned char* X, const REAL* y, const REAL* weights, const int* order, const int* turn, long long visit,
    int placed, ITEM* x, REAL* to_y, REAL* to_weight, long long N, int I, int Y)
{
    gather_rows(X, y, weights, order, turn, visit, placed, x, to_y, to_weight, N, I, Y);
}

extern "C" __global__ void gather_real_codes(
    const REAL* X, const int* y, const REAL* weights, const int* order, const int* turn, long long visit, int placed,
    ITEM* x, int* to_y, REAL* to_weight, long long N, int I, int Y)
{
    gather_rows(X, y, weights, order, turn, visit, placed, x, to_y, to_weight, N, I, Y);
}

extern "C" __global__ void gather_real_targets(
    const REAL* X, const REAL* y, const REAL* weights, const int* order, const int* turn, long long visit, int placed,
    ITEM* x, REAL* to_y, REAL* to_weight, long long N, int I, int Y)
{
    gather_rows(X, y, weights, order, turn, visit, placed, x, to_y, to_weight, N, I, Y);
}
