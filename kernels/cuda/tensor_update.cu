// The gradient from its parts, and the step it makes. Compiled with -DREAL=float and -DRULE, one of rules.cuh's.
//
// One thread a parameter; sums have a fixed order. heads (splits, HEAD) holds the parts of dW1, tails (blocks, TAIL)
// those of db1, dW2, db2, and behind them of the losses and right answers.
#include "tensor.cuh"
#include "rules.cuh"

// The sum of a column, `parts` numbers that lie `pitch` apart
template <class Sum> __device__ Sum add_parts(const float* column, int parts, int pitch)
{
    Sum sum = 0;
#pragma unroll 8  // loads under way at once
    for (int k = 0; k < parts; k++) sum += column[(long long)k * pitch];
    return sum;
}

// dLoss/d of parameter i. `scale` is 1 / N, `pixel` what a 1 in X stands for.
__device__ inline float gradient_of(
    int i, const float* heads, int splits, const float* tails, int blocks, float scale, float pixel)
{
    if (i < HEAD) return add_parts<float>(heads + i, splits, HEAD) * pixel * scale;
    return add_parts<float>(tails + i - HEAD, blocks, TAIL) * scale;
}

// totals += the sum of losses and the number of right answers
__device__ inline void add_totals(int which, const float* tails, int blocks, double* totals)
{
    totals[which] += add_parts<double>(tails + REST + which, blocks, TAIL);
}

// Puts weight i of the first layer into its place among W1's halves.
__device__ inline void write_half(f16* W1, int i, float weight)
{
    keep(W1 + i / H * WIDTH + i % H, weight);
}

extern "C" __global__ void tensor_update(
    float* w,            // (P,)
    float* s,            // (S, P)
    const float* h,      // (8,)  a Step
    const float* heads,  // (splits, HEAD)
    int splits,
    const float* tails,  // (blocks, TAIL)
    int blocks, float scale, float pixel,
    f16* W1,             // (BYTES, WIDTH)
    double* totals)      // (2,)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < P) {
        const float g = gradient_of(i, heads, splits, tails, blocks, scale, pixel);
        Step step = *(const Step*)h;
        const bool bias = (i >= HEAD && i < HEAD + H) || i >= P - O;
        if (bias) step.l2 = step.shrink = 0;
        rules::RULE(w, g, s, P, i, step);
        if (i < HEAD) write_half(W1, i, w[i]);
    } else if (i < P + 2) {
        add_totals(i - P, tails, blocks, totals);
    }
}

// The gradient alone
extern "C" __global__ void tensor_sum(
    float* g,            // (P,)
    const float* heads,  // (splits, HEAD)
    int splits,
    const float* tails,  // (blocks, TAIL)
    int blocks, float scale, float pixel,
    double* totals)      // (2,)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < P)
        g[i] = gradient_of(i, heads, splits, tails, blocks, scale, pixel);
    else if (i < P + 2)
        add_totals(i - P, tails, blocks, totals);
}

// W1 as halves, where another hand has moved it
extern "C" __global__ void tensor_halves(
    const float* w,  // (P,)
    f16* W1)         // (BYTES, WIDTH)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < HEAD) write_half(W1, i, w[i]);
}
