// From rows to dz1, in one pass: both layers, softmax, cross-entropy and its gradient, db1, dW2 and db2. It fuses
// network.forward, the loss, network.deltas and the second layer's part of network.gradients.
//
// A block takes tiles of ROWS rows, all hidden units of them, until there are no more. Of its warps, ROW_WARPS share
// the rows and UNIT_WARPS the units. z1 = X W1 runs over the inputs in chunks, which pass through shared memory in a
// ring of STAGES. What follows z1 stays in registers and shared memory. dz here is dLoss/dz times the rows of the
// batch: a factor of 1 / N would push it towards float16's smallest; tensor_update applies it.
#include "tensor.cuh"

constexpr int UNIT_TILES = WIDTH / 8 / UNIT_WARPS;    // of 8, of a warp
constexpr int WARP_ROWS = 16 * ROW_TILES, WARP_UNITS = 8 * UNIT_TILES;
constexpr int ROWS = WARP_ROWS * ROW_WARPS;
constexpr int WARPS = ROW_WARPS * UNIT_WARPS, THREADS = 32 * WARPS;
constexpr int CHUNKS = (BYTES + CHUNK - 1) / CHUNK;   // the last may be shorter
constexpr int CLASS_TILES = (O + 7) / 8;              // of 8, in z2 = a1 W2
constexpr int Z2_PITCH = 8 * CLASS_TILES + 1;         // floats; odd, so that 32 rows of one class lie in 32 banks

// Shared memory, in bytes: the ring, and at the end sums in its place; W2 as halves; parts of z2; dz2 as halves.
constexpr int X_PITCH = spread(CHUNK), W_PITCH = spread(2 * WIDTH), C_PITCH = spread(2 * 16);
constexpr int STAGE = ROWS * X_PITCH + CHUNK * W_PITCH;
constexpr int W2_AT = STAGES * STAGE;
constexpr int Z2_AT = W2_AT + (WIDTH + 8) * C_PITCH;
constexpr int DZ2_AT = Z2_AT + 4 * UNIT_WARPS * ROWS * Z2_PITCH;
static_assert(SHARED_BYTES == DZ2_AT + ROWS * C_PITCH, "tensor_tiles.py and this file count differently");
static_assert(4 * (TAIL + 2 * WARPS) <= W2_AT, "no room for the sums");
static_assert(WIDTH == 8 * UNIT_TILES * UNIT_WARPS && O <= 16 && CHUNK % 16 == 0, "sizes the tiles cannot hold");

// A thread's place: its warp's first row and unit within the tile, and g and t of its lane.
struct Place { int row, unit, g, t; };

// The row of W1 in a stage that is input k of a chunk. A lane reads four neighbouring bytes of X at once and takes them
// for columns 2t, 2t+1, 2t+8, 2t+9 of a fragment A: within every 16 inputs, rows of W1 stand in that order.
__device__ inline int input_row(int k)
{
    return (k & ~15) | (k & 2) << 2 | (k >> 1 & 6) | (k & 1);
}

// Sends a chunk of X, (ROWS, CHUNK) bytes, and of W1, (CHUNK, WIDTH) halves, on its way into a stage.
__device__ inline void copy_chunk(
    unsigned char* stage, const unsigned char* X, const int* index, const f16* W1, int first, int chunk, int N)
{
    constexpr int X_PARTS = CHUNK / 16, W_PARTS = WIDTH / 8;  // of 16 bytes, in a row
    const int k = chunk * CHUNK;
    for (int c = threadIdx.x; c < ROWS * X_PARTS; c += THREADS) {
        const int row = c / X_PARTS, byte = c % X_PARTS * 16;
        const bool there = first + row < N;
        if (BYTES % CHUNK == 0 || k + byte < BYTES)
            copy_16(stage + row * X_PITCH + byte, X + (there ? row_of(index, first + row) : 0) * BYTES + k + byte, there);
    }
    stage += ROWS * X_PITCH;
    for (int c = threadIdx.x; c < CHUNK * W_PARTS; c += THREADS) {
        const int input = c / W_PARTS, part = c % W_PARTS;
        if (BYTES % CHUNK == 0 || k + input < BYTES)
            copy_16(stage + input_row(input) * W_PITCH + 16 * part, W1 + (k + input) * WIDTH + 8 * part, true);
    }
}

// z1 += X W1 over a chunk
__device__ inline void multiply_chunk(
    float (&z1)[ROW_TILES][UNIT_TILES][4], const unsigned char* stage, Place at, int chunk)
{
    const unsigned char* x = stage + (at.row + at.g) * X_PITCH + 4 * at.t;
    const unsigned char* w = row_for_lane(stage + ROWS * X_PITCH + 2 * at.unit, W_PITCH);
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
        if (BYTES % CHUNK != 0 && chunk * CHUNK + k >= BYTES) break;
        unsigned a[ROW_TILES][4], b[UNIT_TILES][2];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
            const unsigned upper = word(x + 16 * i * X_PITCH + k), lower = word(x + (16 * i + 8) * X_PITCH + k);
            a[i][0] = low_bytes(upper), a[i][1] = low_bytes(lower);
            a[i][2] = high_bytes(upper), a[i][3] = high_bytes(lower);
        }
        load_columns(b, w + k * W_PITCH);
#pragma unroll
        for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) multiply_add(z1[i][j], a[i], b[j][0], b[j][1]);
    }
}

__device__ inline float relu(float z) { return z < 0 ? 0.0f : z; }  // a NaN is not below 0: it stays

// a1 = relu(z1 * pixel + b1) as halves, and z1 = 0 for the next tile. a1[i][j][0] holds row g, [1] row g+8.
__device__ inline void activate(
    unsigned (&a1)[ROW_TILES][UNIT_TILES][2], float (&z1)[ROW_TILES][UNIT_TILES][4], const float* b1, float pixel,
    Place at)
{
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++) {
        const int h = at.unit + 8 * j + 2 * at.t;
        const float b[2] = {h < H ? b1[h] : 0, h + 1 < H ? b1[h + 1] : 0};
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float (&z)[4] = z1[i][j];
                a1[i][j][half] = pack_halves(relu(z[2 * half] * pixel + b[0]), relu(z[2 * half + 1] * pixel + b[1]));
                z[2 * half] = z[2 * half + 1] = 0;
            }
    }
}

// z2 = a1 W2 over this warp's units: a part (ROWS, O) of each warp that shares the rows
__device__ inline void second_layer(
    float* z2, const unsigned (&a1)[ROW_TILES][UNIT_TILES][2], const unsigned char* W2, Place at)
{
    float part[ROW_TILES][CLASS_TILES][4] = {};
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j += 2) {
        const bool pair = j + 1 < UNIT_TILES;  // else 8 units are left, and the next 8 rows of W2 meet zeros
        const int next = at_most(j + 1, UNIT_TILES - 1);
        unsigned b[CLASS_TILES][2];
        load_columns(b, row_for_lane(W2 + (at.unit + 8 * j) * C_PITCH, C_PITCH));
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
            const unsigned a[4] = {a1[i][j][0], a1[i][j][1], pair ? a1[i][next][0] : 0, pair ? a1[i][next][1] : 0};
#pragma unroll
            for (int q = 0; q < CLASS_TILES; q++) multiply_add(part[i][q], a, b[q][0], b[q][1]);
        }
    }
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int q = 0; q < CLASS_TILES; q++) {
            float* z = z2 + (at.row + 16 * i + at.g) * Z2_PITCH + 8 * q + 2 * at.t;
            z[0] = part[i][q][0], z[1] = part[i][q][1];
            z[8 * Z2_PITCH] = part[i][q][2], z[8 * Z2_PITCH + 1] = part[i][q][3];
        }
}

// Of the tile's rows: dz2 = (softmax(z2 + b2) - onehot(y)) * weight as halves, 0 behind the classes and the last row.
// Adds to this thread's sums of losses and of right answers.
__device__ inline void softmax_cross_entropy(
    unsigned char* dz2, const float* z2, const float* b2, const int* index, const int* y, const float* weight,
    int first, int N, float& loss, float& right)
{
    for (int row = threadIdx.x; row < ROWS; row += THREADS) {
        const int n = first + row;
        const bool there = n < N;
        const int target = there ? y[row_of(index, n)] : -1;
        const float share = !there ? 0.0f : weight ? weight[n] : 1.0f;
        float z[16], top, total = 0, z_target = 0;
        int best = 0;
#pragma unroll
        for (int o = 0; o < O; o++) {
            z[o] = b2[o];
#pragma unroll
            for (int w = 0; w < UNIT_WARPS; w++) z[o] += z2[(w * ROWS + row) * Z2_PITCH + o];
            if (o == 0 || z[o] > top) top = z[o], best = o;
            if (o == target) z_target = z[o];
        }
#pragma unroll
        for (int o = 0; o < O; o++) total += exp(z[o] - top);  // at most 1 each: cannot overflow
#pragma unroll
        for (int o = 0; o < 16; o += 2) {
            const float p0 = o < O ? exp(z[o] - top) / total : 0, p1 = o + 1 < O ? exp(z[o + 1] - top) / total : 0;
            ((unsigned*)(dz2 + row * C_PITCH))[o / 2] =
                pack_halves((p0 - (o == target)) * share, (p1 - (o + 1 == target)) * share);
        }
        if (there) {
            loss += (log(total) - (z_target - top)) * share;  // total is at least 1: the logarithm is finite
            right += best == target;
        }
    }
}

// Sums over the rows that a thread's warp has seen, where its fragments hold them.
struct Sums {
    float db1[UNIT_TILES][2];  // this lane's rows of dz1, units 2t and 2t+1
    float dW2[UNIT_TILES][4];  // dz2^T a1: C of (classes, units)
    float db2[4];              // C of (classes, 8), its columns all the same
    float loss, right;
};

// dz1 = (dz2 W2^T) * (a1 > 0), written out; adds to db1, dW2 and db2.
__device__ inline void backward(
    f16* dz1, Sums& sums, const unsigned (&a1)[ROW_TILES][UNIT_TILES][2], const unsigned char* dz2,
    const unsigned char* W2, Place at, int first, int N)
{
    constexpr unsigned ONES = 0x3c003c00;
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++) {
        const unsigned char* rows = dz2 + (at.row + 16 * i) * C_PITCH;
        const unsigned char* row = rows + at.g * C_PITCH + 4 * at.t;
        const unsigned d[4] = {word(row), word(row + 8 * C_PITCH), word(row + 16), word(row + 8 * C_PITCH + 16)};
        unsigned r[2][2];
        load_columns(r, row_for_lane(rows, C_PITCH));
        const unsigned turned[4] = {r[0][0], r[1][0], r[0][1], r[1][1]};  // dz2^T, A of (classes, rows)
        if (at.unit == 0) multiply_add(sums.db2, turned, ONES, ONES);
        const int n = first + at.row + 16 * i + at.g;
        unsigned* out = (unsigned*)(dz1 + (long long)n * WIDTH + at.unit + 2 * at.t);
#pragma unroll
        for (int j = 0; j < UNIT_TILES; j++) {
            const unsigned char* w = W2 + (at.unit + 8 * j + at.g) * C_PITCH + 4 * at.t;
            const unsigned a[2] = {a1[i][j][0], a1[i][j][1]};
            float z[4] = {};
            multiply_add(z, d, word(w), word(w + 16));
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if ((short)a[half] <= 0) z[2 * half] = 0;  // as an integer a half has the sign it has as a number
                if ((int)a[half] < 1 << 16) z[2 * half + 1] = 0;
                if (n + 8 * half < N) out[half * 4 * WIDTH + 4 * j] = pack_halves(z[2 * half], z[2 * half + 1]);
            }
            sums.db1[j][0] += z[0] + z[2], sums.db1[j][1] += z[1] + z[3];
            multiply_add(sums.dW2[j], turned, transpose(a[0]), transpose(a[1]));
        }
    }
}

// value plus those of the lanes whose number differs in the bits from `from` to `to`; the same in each of them
__device__ inline float add_lanes(float value, int from, int to)
{
    for (int lane = from; lane <= to; lane *= 2) value += __shfl_xor_sync(0xffffffff, value, lane);
    return value;
}

// Adds up the sums of a block's threads, in a fixed order, in shared memory, and writes them to `tail`.
__device__ inline void write_sums(float* tail, float* shared, Sums& sums, Place at)
{
    float *db1 = shared, *dW2 = db1 + H, *db2 = dW2 + H * O, *warps = shared + TAIL;
    const int warp = threadIdx.x / 32;
    const float loss = add_lanes(sums.loss, 1, 16), right = add_lanes(sums.right, 1, 16);
    if (threadIdx.x % 32 == 0) warps[2 * warp] = loss, warps[2 * warp + 1] = right;
    for (int turn = 0; turn < ROW_WARPS; turn++) {
        const bool add = turn > 0;  // the first writes, the others add
        if (at.row == turn * WARP_ROWS) {
            if (at.unit == 0 && at.t == 0)
                for (int half = 0; half < 2; half++) {
                    const int o = at.g + 8 * half;
                    if (o < O) db2[o] = (add ? db2[o] : 0) + sums.db2[2 * half];
                }
#pragma unroll
            for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int h = at.unit + 8 * j + 2 * at.t + e;
                    const float column = add_lanes(sums.db1[j][e], 4, 16);
                    if (h < H && at.g == 0) db1[h] = (add ? db1[h] : 0) + column;
                    for (int half = 0; half < 2; half++) {
                        const int o = at.g + 8 * half;
                        if (h < H && o < O) dW2[h * O + o] = (add ? dW2[h * O + o] : 0) + sums.dW2[j][2 * half + e];
                    }
                }
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < REST; i += THREADS) tail[i] = shared[i];
    if (threadIdx.x < 2) {
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += warps[2 * w + threadIdx.x];
        tail[REST + threadIdx.x] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_forward(
    const unsigned char* X,   // (M, BYTES)
    const int* index,         // (N,)        rows of X in the order of the batch; null: the first N
    const int* y,             // (M,)        0 .. O-1
    const float* weight,      // (N,)        of the batch's rows; null: 1 each
    float pixel,              //             what a 1 in X stands for: 1 / 255
    const float* parameters,  // (P,)
    const f16* W1,            // (BYTES, WIDTH)  the first layer's weights, 0 behind the inputs and the units
    f16* dz1,                 // (N, WIDTH)
    float* tails,             // (gridDim.x, TAIL)
    int N)
{
    DYNAMIC_SHARED(shared);
    unsigned char *W2 = shared + W2_AT, *dz2 = shared + DZ2_AT;
    float* z2 = (float*)(shared + Z2_AT);
    const float *b1 = parameters + HEAD, *b2 = b1 + H + H * O;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Place at = {warp / UNIT_WARPS * WARP_ROWS, warp % UNIT_WARPS * WARP_UNITS, lane / 4, lane % 4};
    const int tiles = (N + ROWS - 1) / ROWS, mine = (tiles - (int)blockIdx.x + (int)gridDim.x - 1) / (int)gridDim.x;
    const auto first_row = [&](int tile) { return ((int)blockIdx.x + tile * (int)gridDim.x) * ROWS; };
    const auto copy = [&](int step) {
        if (step < mine * CHUNKS)
            copy_chunk(shared + step % STAGES * STAGE, X, index, W1, first_row(step / CHUNKS), step % CHUNKS, N);
        end_copies();
    };

    for (int step = 0; step < STAGES - 1; step++) copy(step);
    for (int i = threadIdx.x; i < (WIDTH + 8) * 16; i += THREADS) {
        const int h = i / 16, o = i % 16;
        keep((f16*)(W2 + h * C_PITCH) + o, h < H && o < O ? b1[H + h * O + o] : 0);
    }
    float z1[ROW_TILES][UNIT_TILES][4] = {};
    Sums sums = {};
    for (int step = 0; step < mine * CHUNKS; step++) {
        wait_copies<STAGES - 2>();
        __syncthreads();  // the chunk is there for all threads, and all have left the stage that is filled next
        copy(step + STAGES - 1);
        multiply_chunk(z1, shared + step % STAGES * STAGE, at, step % CHUNKS);
        if (step % CHUNKS < CHUNKS - 1) continue;

        const int first = first_row(step / CHUNKS);
        unsigned a1[ROW_TILES][UNIT_TILES][2];
        activate(a1, z1, b1, pixel, at);
        second_layer(z2 + at.unit / WARP_UNITS * ROWS * Z2_PITCH, a1, W2, at);
        __syncthreads();
        softmax_cross_entropy(dz2, z2, b2, index, y, weight, first, N, sums.loss, sums.right);
        __syncthreads();
        backward(dz1, sums, a1, dz2, W2, at, first, N);
    }
    write_sums(tails + (long long)blockIdx.x * TAIL, (float*)shared, sums, at);
}
