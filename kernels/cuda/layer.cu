// What a layer needs beside its matrix products. REAL, ITEM and Slots: see real.cuh.
//
// N rows, H units. Arrays are C-ordered.

#include "real.cuh"
#include "elements.cuh"
#include "epoch.cuh"

enum { IDENTITY, RELU, LOGISTIC, TANH, LEAKY_RELU, ELU, GELU, SILU };  // as fastmlp.activations numbers them

#define LEAK REAL(0.01)
#define GELU_SCALE REAL(0.7978845608028654)  // sqrt(2 / pi)
#define GELU_CUBE REAL(0.044715)

inline __device__ REAL sigmoid(REAL z)
{
    const REAL e = exp(-fabs(z));  // at most 1: cannot overflow
    return (z < 0 ? e : REAL(1)) / (1 + e);
}

inline __device__ REAL activation(int kind, REAL z)
{
    switch (kind) {
    case RELU: return z < 0 ? REAL(0) : z;  // a NaN is not below 0: it stays
    case LOGISTIC: return sigmoid(z);
    case TANH: return tanh(z);
    case LEAKY_RELU: return z > 0 ? z : LEAK * z;
    case ELU: return z > 0 ? z : exp(-fabs(z)) - 1;
    case GELU: return REAL(0.5) * z * (1 + tanh(GELU_SCALE * (z + GELU_CUBE * z * z * z)));
    case SILU: return z * sigmoid(z);
    default: return z;
    }
}

inline __device__ REAL slope(int kind, REAL z, REAL a)
{
    switch (kind) {
    case RELU: return a > 0;
    case LOGISTIC: return a * (1 - a);
    case TANH: return 1 - a * a;
    case LEAKY_RELU: return a > 0 ? REAL(1) : LEAK;
    case ELU: return a > 0 ? REAL(1) : a + 1;
    case GELU: {
        const REAL t = tanh(GELU_SCALE * (z + GELU_CUBE * z * z * z));
        return REAL(0.5) * (1 + t) + REAL(0.5) * z * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBE * z * z);
    }
    case SILU: {
        const REAL p = sigmoid(z);
        return p + a * (1 - p);
    }
    default: return 1;
    }
}

// fastmlp.dropout: whether the unit at `place` in the batch stays in
inline __device__ unsigned long long hashed(unsigned long long n)
{
    n = (n + 0x9E3779B97F4A7C15ull) * 0x9E3779B97F4A7C15ull;
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9ull;
    n = (n ^ n >> 27) * 0x94D049BB133111EBull;
    return n ^ n >> 31;
}
inline __device__ bool stays(unsigned long long bar, unsigned long long key, unsigned long long place)
{
    return hashed(place ^ hashed(key)) >> 40 >= bar;
}

// fastmlp.dropout.step_key: a step's key is 2^16 more than the one before
inline __device__ unsigned long long step_key(unsigned long long first, const int* turn, int step)
{
    return first + ((unsigned long long)(turn[STEPS_TAKEN] + step) << 16);
}

template <class T>
__device__ void bias(T* z, const REAL* b, int kind, long long N, int H)
{
    each(blockIdx.x, N, H,
        [=](long long j, long long, int h) { return number(z[j]) + b[h]; },
        [=](long long j, REAL v) { keep(z + j, activation(kind, v)); });
}

// z = f(z + b)
extern "C" __global__ void add_bias(
    ITEM* z,        // (N, H)  h W on entry
    const REAL* b,  // (H,)
    int kind, long long N, int H)
{
    bias(z, b, kind, N, H);
}

// z += b: the logits, which are never rounded to ITEM
extern "C" __global__ void add_last_bias(
    REAL* z,        // (N, O)  h W on entry
    const REAL* b,  // (O,)
    long long N, int O)
{
    bias(z, b, IDENTITY, N, O);
}

// a = f(z)
extern "C" __global__ void activate(
    const ITEM* z,  // (N, H)
    ITEM* a,        // (N, H)  may be z itself
    int kind, long long N, int H)
{
    each(blockIdx.x, N, H,
        [=](long long j, long long, int) { return number(z[j]); },
        [=](long long j, REAL v) { keep(a + j, activation(kind, v)); });
}

// out = a / (1 - share) where the unit stays in, else 0
extern "C" __global__ void drop_units(
    const ITEM* a,                  // (N, H)
    ITEM* out,                      // (N, H)  may be a itself
    REAL upscale,                   // 1 / (1 - share)
    unsigned long long bar,         // share of 2^24
    const unsigned long long* key,  // (1,)    of the first step
    const int* turn, int step,      //         this step, see epoch.cuh
    int layer,
    long long first,                // place in the batch of the first row
    long long N, int H)
{
    const unsigned long long own = step_key(*key, turn, step) + layer;
    each(blockIdx.x, N, H,
        [=](long long j, long long, int) { return number(a[j]); },
        [=](long long j, REAL v) { keep(out + j, stays(bar, own, first * H + j) ? v * upscale : REAL(0)); });
}

#define COLUMNS 32  // blockDim.x: a warp reads 32 neighbours of one row
#define ROWS 8      // blockDim.y

// d[n, h] = change(n, h, read(n, h)) for the share of the rows that the blocks of one blockIdx.y take; their sums into
// a slot. As in elements.cuh a thread reads EACH elements before it writes one.
template <class Read, class Change>
__device__ void change_and_sum(ITEM* d, Slots sums, long long N, int H, Read read, Change change)
{
    __shared__ REAL part[ROWS][COLUMNS];
    const int h = blockIdx.x * COLUMNS + threadIdx.x;
    const long long step = gridDim.y * ROWS;
    REAL sum = 0;
    if (h < H)
        for (long long first = blockIdx.y * ROWS + threadIdx.y; first < N; first += EACH * step) {
            decltype(read(first, h)) v[EACH];
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                const long long n = first + k * step;
                v[k] = read(n < N ? n : N - 1, h);
            }
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                const long long n = first + k * step;
                if (n >= N) break;
                ITEM kept;
                keep(&kept, change(n, h, v[k]));
                d[n * H + h] = kept;
                sum += number(kept);
            }
        }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || h >= H) return;
    for (int k = 1; k < ROWS; k++)
        sum += part[k][threadIdx.x];
    *slot(sums, h) = sum;
}

// d *= f'(z), and the column sums of d
extern "C" __global__ void delta(
    ITEM* d,        // (N, H)  dz W^T of the layer above on entry
    const ITEM* z,  // (N, H)  a itself where f' needs no z
    const ITEM* a,  // (N, H)
    int kind,
    REAL* parts,    // (gridDim.y, C), at the layer's first column
    int C, long long N, int H)
{
    struct At { REAL d, z, a; };
    change_and_sum(d, Slots{parts, C}, N, H,
        [=](long long n, int h) { return At{number(d[n * H + h]), number(z[n * H + h]), number(a[n * H + h])}; },
        [=](long long, int, At at) { return at.d * slope(kind, at.z, at.a); });
}

// d /= 1 - share where the unit stayed in, else 0; and the column sums of d
extern "C" __global__ void drop_deltas(
    ITEM* d,                        // (N, H)
    REAL upscale,                   // 1 / (1 - share)
    unsigned long long bar,         // share of 2^24
    const unsigned long long* key,  // (1,)    of the first step
    const int* turn, int step,      //         this step, see epoch.cuh
    int layer, long long first,
    REAL* parts,                    // (gridDim.y, C), at the layer's first column
    int C, long long N, int H)
{
    const unsigned long long own = step_key(*key, turn, step) + layer;
    change_and_sum(d, Slots{parts, C}, N, H,
        [=](long long n, int h) { return number(d[n * H + h]); },
        [=](long long n, int h, REAL v) { return stays(bar, own, (first + n) * H + h) ? v * upscale : REAL(0); });
}
