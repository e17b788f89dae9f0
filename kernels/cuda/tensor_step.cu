// dW1 = X^T dz1, and the step that the whole gradient makes: the first layer's part of network.gradients, and a rule of
// rules.cuh, RULE, over all parameters. dz1 and the parts of the rest of the gradient as tensor_forward wrote them.
//
// blockIdx.x is a slice of 16 inputs, blockIdx.y a share of the rows, which pass in chunks through shared memory in a
// ring of STAGES. The last block of a slice makes the step of its weights. The blocks behind the SLICES take the other
// parameters, one a thread, and the totals. Sums have a fixed order.
#include "tensor.cuh"
#include "rules.cuh"

constexpr int SLICE = 16, SLICES = BYTES / SLICE;
constexpr int D_PITCH = spread(2 * WIDTH), STAGE = CHUNK * (SLICE + D_PITCH);
constexpr int X_COPIES = divided_up(CHUNK, THREADS);  // by a thread: rows of a slice, 16 bytes each
static_assert(SHARED_BYTES == STAGES * STAGE, "tensor_tiles.py and this file count differently");
static_assert(CHUNK % 16 == 0, "sizes the tiles cannot hold");
constexpr int OWNED = divided_up(SLICE * H, THREADS);  // weights of a thread
constexpr int PITCH = WIDTH + 4;                       // floats from row to row of a slice's gradient: rows apart in banks
static_assert(4 * SLICE * PITCH <= SHARED_BYTES, "no room for the gradient");

// The rows of X, from `first` of the batch on, that this thread copies; -1 behind the batch. Looked up a chunk ahead: an
// address that hangs on a read from memory is late.
__device__ inline void find_rows(int (&rows)[X_COPIES], const int* order, long long visit, int first, int N)
{
#pragma unroll
    for (int i = 0; i < X_COPIES; i++) {
        const int k = threadIdx.x + i * THREADS, n = first + k;
        rows[i] = k < CHUNK && n < N ? int(row_of(order, visit + n)) : -1;
    }
}

// Sends a slice of rows of X, (CHUNK, SLICE) bytes, on its way into a stage; 0 behind the last row.
__device__ inline void copy_rows(unsigned char* stage, const unsigned char* X, const int (&rows)[X_COPIES], int input)
{
#pragma unroll
    for (int i = 0; i < X_COPIES; i++) {
        const int k = threadIdx.x + i * THREADS;
        const bool there = rows[i] >= 0;
        if (k < CHUNK) copy_16(stage + k * SLICE, X + (there ? (long long)rows[i] * BYTES + input : 0), there);
    }
}

// Sends rows of dz1, (CHUNK, WIDTH) halves, on their way into a stage; 0 behind the last row. 16 rows at a time, for
// THREADS is 16 * PARTS.
__device__ inline void copy_deltas(unsigned char* stage, const f16* dz1, int first, int N)
{
    constexpr int PARTS = WIDTH / 8;  // of 16 bytes, in a row
    const int row = threadIdx.x / PARTS, unit = threadIdx.x % PARTS * 8;
    unsigned char* to = stage + CHUNK * SLICE + row * D_PITCH + 2 * unit;
    const f16* from = dz1 + (long long)(first + row) * WIDTH + unit;
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
        const bool there = first + row + k < N;
        copy_16(to + k * D_PITCH, there ? from + k * WIDTH : dz1, there);
    }
}

// dW += X^T dz1 over a chunk. A lane reads two neighbouring inputs of a row at once: C's row g is input 2g of 16, row g+8
// the one behind it.
__device__ inline void multiply_chunk(Sums& dW, const unsigned char* stage, int unit, int g, int t)
{
    const unsigned char* x = stage + 2 * t * SLICE + 2 * g;
    const unsigned char* d = row_for_lane(stage + CHUNK * SLICE + 2 * unit, D_PITCH);
    const auto pair = [&](int k) { return (unsigned)*(const unsigned short*)(x + k * SLICE); };
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
        // of rows 2t and 2t+1, and 2t+8 and 2t+9: the first input of both, then the second of both
        const unsigned near = pick_bytes(pair(k), pair(k + 1), 0x5140);
        const unsigned far = pick_bytes(pair(k + 8), pair(k + 9), 0x5140);
        const unsigned a[4] = {low_bytes(near), high_bytes(near), low_bytes(far), high_bytes(far)};
        multiply_add_pair(dW, a, d + k * D_PITCH);
    }
}

// A parameter and its state, in registers: read long before the gradient is there.
struct Own { float w, s[STATES > 0 ? STATES : 1]; };

__device__ inline Own read_own(const float* w, const float* s, int i)
{
    Own own;
    own.w = read_anew(w + i);
#pragma unroll
    for (int k = 0; k < STATES; k++) own.s[k] = read_anew(s + k * P + i);
    return own;
}

// The step of parameter i with gradient g. Biases are not held small. Returns the parameter.
__device__ inline float move(Own own, float* w, float* s, int i, float g, Step numbers)
{
    const bool bias = (i >= HEAD && i < HEAD + H) || i >= P - O;
    if (bias) numbers.l2 = numbers.shrink = 0;
    rules::RULE(&own.w, g, own.s, 1, 0, numbers);
    w[i] = own.w;
#pragma unroll
    for (int k = 0; k < STATES; k++) s[k * P + i] = own.s[k];
    return own.w;
}

// The sum of a column of tails (blocks, TAIL)
template <class Sum> __device__ Sum add_parts(const float* column, int blocks)
{
    constexpr int AT_ONCE = 8;  // reads under way
    Sum sum = 0;
    for (int begin = 0; begin < blocks; begin += AT_ONCE)
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            sum += begin + k < blocks ? read_anew(column + (long long)(begin + k) * TAIL) : 0.0f;
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_step(
    const unsigned char* X,  // (M, BYTES)
    const int* order,        // (V,)            rows of X in the order of visits; null: as they stand
    const int* turn,         // (2,)            see epoch.cuh
    int step, int visit,     //                 this step, and its first visit, counted from turn
    int* arrived,            // (4,)            see tensor.cuh
    const f16* dz1,          // (N, WIDTH)
    float* parts,            // (SLICES, gridDim.y, SLICE * WIDTH)
    int* tickets,            // (SLICES,)       0
    const float* tails,      // (blocks, TAIL)  parts of db1, dW2, db2, the losses and the right answers
    int blocks,
    const float* table,      // (steps, 8)      a Step each
    float pixel,             //                 what a 1 in X stands for: 1 / 255
    float* w,                // (P,)
    float* s,                // (S, P)
    f16* W1,                 // (BYTES, WIDTH)
    f16* W2,                 // (WIDTH, 16)
    double* totals,          // (steps, 3)      the sum of losses and the number of right answers are added
    int N)
{
    DYNAMIC_SHARED(shared);
    const int now = turn[STEPS_TAKEN] + step, odd = now & 1;
    const Step numbers = ((const Step*)table)[now];
    const float scale = 1.0f / N;
    const auto wait = [&] {
        wait_for_all(arrived + FORWARD + odd);
        if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) arrived[STEP + !odd] = 0;  // for the next step
        start_next_kernel();
    };
    if (blockIdx.x < SLICES) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, unit = threadIdx.x / 32 * 16;
        const int input = blockIdx.x * SLICE, chunks = divided_up(N, CHUNK);
        const int from = chunks * blockIdx.y / gridDim.y, to = chunks * (blockIdx.y + 1) / gridDim.y;
        const long long begin = turn[ROWS_VISITED] + visit;
        const auto stage = [&](int chunk) { return shared + (chunk - from) % STAGES * STAGE; };

        // Rows and parameters are there already, dz1 may still be at work. The slice's weights lie side by side: of this
        // thread every THREADS-th.
        int rows[X_COPIES];
        find_rows(rows, order, begin, from * CHUNK, N);
        const auto copy_next_rows = [&](int chunk) {
            copy_rows(stage(chunk), X, rows, input);
            find_rows(rows, order, begin, (chunk + 1) * CHUNK, N);
        };
        for (int chunk = from; chunk < from + STAGES - 1 && chunk < to; chunk++) copy_next_rows(chunk);
        const int first = input * H, count = at_most(SLICE * H, HEAD - first);
        Own own[OWNED];
#pragma unroll
        for (int q = 0; q < OWNED; q++) {
            const int i = threadIdx.x + q * THREADS;
            if (i < count) own[q] = read_own(w, s, first + i);
        }
        wait();

        for (int chunk = from; chunk < from + STAGES - 1; chunk++) {
            if (chunk < to) copy_deltas(stage(chunk), dz1, chunk * CHUNK, N);
            end_copies();
        }
        Sums dW = {};
        for (int chunk = from; chunk < to; chunk++) {
            wait_copies<STAGES - 2>();
            __syncthreads();  // the chunk is there for all threads, and all have left the stage that is filled next
            const int next = chunk + STAGES - 1;
            if (next < to) {
                copy_next_rows(next);
                copy_deltas(stage(next), dz1, next * CHUNK, N);
            }
            end_copies();
            multiply_chunk(dW, stage(chunk), unit, g, t);
        }
        if (gridDim.y > 1 && !add_shares<4>(dW, parts, tickets)) return;

        // From fragments to the order in memory, in which neighbouring threads read and write neighbours.
        float* gradient = (float*)shared;  // (SLICE, PITCH)
        __syncthreads();  // all have left the ring
#pragma unroll
        for (int q = 0; q < 8; q++)
            gradient[(2 * g + q % 4 / 2) * PITCH + unit + 8 * (q / 4) + 2 * t + q % 2] = dW.of[q / 4][q % 4];
        __syncthreads();
#pragma unroll
        for (int q = 0; q < OWNED; q++) {
            const int i = threadIdx.x + q * THREADS, k = i / H, h = i % H;
            if (i >= count) break;
            const float moved = move(own[q], w, s, first + i, gradient[k * PITCH + h] * pixel * scale, numbers);
            keep(W1 + (input + k) * WIDTH + h, moved);
        }
    } else if (blockIdx.y == 0) {  // one share does it
        const int part = (blockIdx.x - SLICES) * THREADS + threadIdx.x, i = HEAD + part, o = part - H;
        Own own;
        if (part < REST) own = read_own(w, s, i);
        wait();
        if (part < REST) {
            const float moved = move(own, w, s, i, add_parts<float>(tails + part, blocks) * scale, numbers);
            if (o >= 0 && o < H * O) keep(W2 + o / O * 16 + o % O, moved);
        } else if (part < TAIL) {
            totals[3 * now + part - REST] += add_parts<double>(tails + part, blocks);
        }
    } else {
        start_next_kernel();
        return;
    }
    arrive(arrived + STEP + odd);
    wait_for_last_kernel();  // kernels end in their order
}
