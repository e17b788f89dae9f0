// What follows a hidden layer's z, for a tile of rows, on tensor cores: the second of two layers, softmax, cross
// entropy, and the way back. "1" is the hidden layer here, "2" the last. Included behind primitives.cuh and the sizes:
// H units, O <= 16 classes, ROWS of a tile, and THREADS, of which each warp has the same number of units.
//
// g = lane / 4, t = lane % 4. A warp has K fragments of hidden units, 16 units each. W2 (.., 16) and dz2 (ROWS, 16) are
// halves in shared memory, each row in C_PITCH bytes.
#pragma once

constexpr int WARPS = THREADS / 32;
constexpr int CLASS_TILES = divided_up(O, 8);  // of 8, in z2 = a1 W2
constexpr int Z2_PITCH = 8 * CLASS_TILES + 1;  // floats; odd, so that rows of one class lie in different banks
constexpr int C_PITCH = spread(2 * 16);
constexpr int SHARERS = THREADS >= 8 * ROWS ? 8 : THREADS >= 4 * ROWS ? 4 : 2;  // threads of a row's softmax

__device__ inline float relu(float z) { return z < 0 ? 0.0f : z; }  // a NaN is not below 0: it stays

// value plus those of the lanes whose number differs in the bits from `from` to `to`; the same in each of them
__device__ inline float add_lanes(float value, int from, int to)
{
    for (int lane = from; lane <= to; lane *= 2) value += __shfl_xor_sync(0xffffffff, value, lane);
    return value;
}

// z2 = a1 W2 over this warp's units, a part (ROWS, O) of each warp. a1 are fragments A of (16 rows, 16 units).
template <int K>
__device__ inline void second_layer(float* z2, const unsigned (&a1)[K][4], const unsigned char* W2, int g, int t)
{
    float part[CLASS_TILES][4] = {};
#pragma unroll
    for (int k = 0; k < K; k++) {
        unsigned b[4];
        load_transposed_4(b, row_for_lane(W2 + 16 * k * C_PITCH, C_PITCH));
#pragma unroll
        for (int q = 0; q < CLASS_TILES; q++) multiply_add(part[q], a1[k], b[2 * q], b[2 * q + 1]);
    }
#pragma unroll
    for (int q = 0; q < CLASS_TILES; q++) {
        float* z = z2 + g * Z2_PITCH + 8 * q + 2 * t;
        z[0] = part[q][0], z[1] = part[q][1];
        z[8 * Z2_PITCH] = part[q][2], z[8 * Z2_PITCH + 1] = part[q][3];
    }
}

// A row's softmax is the work of SHARERS threads side by side, each with a few classes: every SHARERS-th.
constexpr int EACH = 16 / SHARERS;

// Of this thread's row: dz2 = (softmax(z2 + b2) - onehot(label)) * weight as halves, 0 behind the classes. The loss and
// whether the answer is right come back in the first thread of a row; label is -1, and weight 0, behind the batch.
__device__ inline void softmax_cross_entropy(
    unsigned char* dz2, const float* z2, const float (&b2)[EACH], int label, float weight, float& loss, float& right)
{
    const int row = threadIdx.x / SHARERS, share = threadIdx.x % SHARERS;
    float z[EACH], top = 0, total = 0, target = 0;
    int best = -1;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int o = i * SHARERS + share;
        if (o >= O) break;
        z[i] = b2[i];
#pragma unroll
        for (int w = 0; w < WARPS; w++) z[i] += z2[(w * ROWS + row) * Z2_PITCH + o];
        if (best < 0 || z[i] > top) top = z[i], best = o;
    }
    for (int lane = 1; lane < SHARERS; lane *= 2) {
        const float other = __shfl_xor_sync(0xffffffff, top, lane);
        const int o = __shfl_xor_sync(0xffffffff, best, lane);
        // of two as high the first class, as in one walk over all of them; a NaN is above nothing
        if (o >= 0 && (best < 0 || other > top || (other == top && o < best))) top = other, best = o;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int o = i * SHARERS + share;
        if (o >= O) break;
        if (o == label) target = z[i] - top;
        total += z[i] = exp(z[i] - top);  // at most 1: cannot overflow
    }
    total = add_lanes(total, 1, SHARERS / 2);
    target = add_lanes(target, 1, SHARERS / 2);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int o = i * SHARERS + share;
        keep((f16*)(dz2 + row * C_PITCH) + o, o < O ? (z[i] / total - (o == label)) * weight : 0);
    }
    const bool counts = label >= 0 && share == 0;
    loss = counts ? (log(total) - target) * weight : 0;  // total is at least 1: the logarithm is finite
    right = counts && best == label;
}

// What a warp sums over rows. dW2 and db2 are fragments C of (classes, 8): the transpose of dW2, a tile for 8 units
// each, and db2 in all columns alike, in the first warp alone. db1, of the two units that a lane has of each tile, is
// of the rows that the lane has.
template <int K> struct TailSums { float dW2[K][2][4], db1[K][2][2], db2[4]; };

// dz1 = (dz2 W2^T) * (a1 > 0) of 16 rows, as fragments like a1, and what they add to the sums
template <int K>
__device__ inline void backward(
    unsigned (&dz1)[K][4], TailSums<K>& sums, const unsigned (&a1)[K][4], const unsigned char* dz2,
    const unsigned char* W2, int g, int t)
{
    constexpr unsigned ONES = 0x3c003c00;
    const unsigned char* row = dz2 + g * C_PITCH + 4 * t;
    const unsigned d[4] = {word(row), word(row + 8 * C_PITCH), word(row + 16), word(row + 8 * C_PITCH + 16)};
    unsigned r[4];
    load_transposed_4(r, row_for_lane(dz2, C_PITCH));
    const unsigned turned[4] = {r[0], r[2], r[1], r[3]};  // dz2^T, A of (classes, rows)
    if (threadIdx.x < 32) multiply_add(sums.db2, turned, ONES, ONES);
#pragma unroll
    for (int i = 0; i < 2 * K; i++) {
        const int k = i / 2, j = i % 2;
        const unsigned char* w = W2 + (8 * i + g) * C_PITCH + 4 * t;
        const unsigned a[2] = {a1[k][2 * j], a1[k][2 * j + 1]};  // rows g, g+8
        float z[4] = {};
        multiply_add(z, d, word(w), word(w + 16));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if ((short)a[half] <= 0) z[2 * half] = 0;  // as an integer a half has the sign it has as a number
            if ((int)a[half] < 1 << 16) z[2 * half + 1] = 0;
            dz1[k][2 * j + half] = pack_halves(z[2 * half], z[2 * half + 1]);
        }
        multiply_add(sums.dW2[k][j], turned, transpose(a[0]), transpose(a[1]));  // dz2^T a1: C of (classes, units)
#pragma unroll
        for (int e = 0; e < 2; e++) sums.db1[k][j][e] += z[e] + z[2 + e];
    }
}

// Writes a warp's sums: db1 (H,), dW2 (H, O) or its transpose, whose numbers lie `of_unit` and `of_class` apart, and
// db2 (O,). h is the first unit of this lane; those of a fragment's second tile are `apart`.
template <int K>
__device__ inline void write_sums(
    float* db1, float* dW2, float* db2, const TailSums<K>& sums, int of_unit, int of_class, int h, int apart, int g,
    int t)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (threadIdx.x < 32 && t == 0 && g + 8 * half < O) db2[g + 8 * half] = sums.db2[2 * half];
#pragma unroll
    for (int i = 0; i < 4 * K; i++) {
        const int k = i / 4, j = i / 2 % 2, e = i % 2, unit = h + 16 * k + apart * j + e;
        const float column = add_lanes(sums.db1[k][j][e], 4, 16);
        if (unit < H && g == 0) db1[unit] = column;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int o = g + 8 * half;
            if (unit < H && o < O) dW2[unit * of_unit + o * of_class] = sums.dW2[k][j][2 * half + e];
        }
    }
}

// totals (2,): the losses and the right answers of all threads. places (2 WARPS,): shared, and no longer read by any.
__device__ inline void write_totals(float* totals, float* places, float loss, float right)
{
    loss = add_lanes(loss, 1, 16), right = add_lanes(right, 1, 16);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) places[2 * warp] = loss, places[2 * warp + 1] = right;
    __syncthreads();
    if (threadIdx.x < 2) {
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += places[2 * w + threadIdx.x];
        totals[threadIdx.x] = sum;
    }
}
