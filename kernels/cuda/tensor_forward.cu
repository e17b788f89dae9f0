// From rows to dz1, in one pass: both layers, softmax, cross-entropy and its gradient, db1, dW2 and db2. It fuses
// network.forward, the loss, network.deltas and the second layer's part of network.gradients.
//
// blockIdx.x is a tile of 16 rows, blockIdx.y a share of the inputs. z1 = X W1 runs over the share's inputs in chunks,
// which pass through shared memory in a ring of STAGES. The last block of a tile goes on, in registers and shared memory.
// dz here is dLoss/dz times the rows of the batch: a factor of 1 / N would push it towards float16's smallest;
// tensor_step applies it.
#include "tensor.cuh"

constexpr int ROWS = 16;
#include "tensor_tail.cuh"

constexpr int CHUNKS = divided_up(BYTES, CHUNK);  // the last may be shorter

// Shared memory, in bytes: the ring, and at the end sums in its place; W2 as halves; parts of z2; dz2 as halves.
constexpr int X_PITCH = spread(CHUNK), W_PITCH = spread(2 * WIDTH);
constexpr int STAGE = ROWS * X_PITCH + CHUNK * W_PITCH;
constexpr int W2_AT = STAGES * STAGE;
constexpr int Z2_AT = W2_AT + WIDTH * C_PITCH;
constexpr int DZ2_AT = Z2_AT + divided_up(4 * WARPS * ROWS * Z2_PITCH, 16) * 16;
static_assert(SHARED_BYTES == DZ2_AT + ROWS * C_PITCH, "tensor_tiles.py and this file count differently");
static_assert(4 * TAIL <= W2_AT, "no room for the sums");
static_assert(O <= 16 && CHUNK % 16 == 0, "sizes the tiles cannot hold");

constexpr int X_PARTS = CHUNK / 16, W_PARTS = WIDTH / 8;       // of 16 bytes, in a row of a chunk
constexpr int X_COPIES = divided_up(ROWS * X_PARTS, THREADS);  // by a thread

// The rows of X, from `first` of the batch on, of which this thread copies its parts; -1 behind the batch. They are the
// same for every chunk: looked up once.
__device__ inline void find_rows(int (&rows)[X_COPIES], const int* order, long long visit, int first, int N)
{
#pragma unroll
    for (int i = 0; i < X_COPIES; i++) {
        const int part = threadIdx.x + i * THREADS, n = first + part / X_PARTS;
        rows[i] = part < ROWS * X_PARTS && n < N ? int(row_of(order, visit + n)) : -1;
    }
}

// Sends a chunk of X, (ROWS, CHUNK) bytes, on its way into a stage.
__device__ inline void copy_rows(unsigned char* stage, const unsigned char* X, const int (&rows)[X_COPIES], int chunk)
{
#pragma unroll
    for (int i = 0; i < X_COPIES; i++) {
        const int part = threadIdx.x + i * THREADS, byte = chunk * CHUNK + part % X_PARTS * 16;
        const bool there = rows[i] >= 0;
        if (part < ROWS * X_PARTS && (BYTES % CHUNK == 0 || byte < BYTES))
            copy_16(stage + part / X_PARTS * X_PITCH + part % X_PARTS * 16,
                    X + (there ? (long long)rows[i] * BYTES + byte : 0), there);
    }
}

// Sends a chunk of W1, (CHUNK, WIDTH) halves, on its way into a stage: 16 rows at a time, for THREADS is 16 * W_PARTS.
__device__ inline void copy_weights(unsigned char* stage, const f16* W1, int chunk)
{
    const int input = threadIdx.x / W_PARTS, unit = threadIdx.x % W_PARTS * 8;
    unsigned char* to = stage + ROWS * X_PITCH + input_row(input) * W_PITCH + 2 * unit;
    const f16* from = W1 + (chunk * CHUNK + input) * WIDTH + unit;
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16)
        if (BYTES % CHUNK == 0 || chunk * CHUNK + k < BYTES) copy_16(to + k * W_PITCH, from + k * WIDTH, true);
}

// z1 += X W1 over a chunk
__device__ inline void multiply_chunk(Sums& z1, const unsigned char* stage, int unit, int g, int t, int chunk)
{
    const unsigned char* x = stage + g * X_PITCH + 4 * t;
    const unsigned char* w = row_for_lane(stage + ROWS * X_PITCH + 2 * unit, W_PITCH);
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
        if (BYTES % CHUNK != 0 && chunk * CHUNK + k >= BYTES) break;
        const unsigned upper = word(x + k), lower = word(x + 8 * X_PITCH + k);
        const unsigned a[4] = {low_bytes(upper), low_bytes(lower), high_bytes(upper), high_bytes(lower)};
        multiply_add_pair(z1, a, w + k * W_PITCH);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_forward(
    const unsigned char* X,   // (M, BYTES)
    const int* order,         // (V,)        rows of X in the order of visits; null: as they stand
    const int* turn,          // (2,)        see epoch.cuh
    int step, int visit,      //             this step, and its first visit, counted from turn
    int follows,              //             whether the kernel launched before is the last step's tensor_step
    int* arrived,             // (4,)        see tensor.cuh
    const int* y,             // (M,)        0 .. O-1
    const float* weights,     // (V,)        in the order of visits; null: 1 each
    float pixel,              //             what a 1 in X stands for: 1 / 255
    const float* parameters,  // (P,)
    const f16* W1,            // (BYTES, WIDTH)  the first layer's weights, 0 behind the inputs and the units
    const f16* W2,            // (WIDTH, 16)     the second's, 0 behind the units and the classes
    f16* dz1,                 // (N, WIDTH)
    float* parts,             // (gridDim.x, gridDim.y, ROWS * WIDTH)
    int* tickets,             // (gridDim.x,)    0
    float* tails,             // (gridDim.x, TAIL)
    int N)
{
    DYNAMIC_SHARED(shared);
    unsigned char *W2_halves = shared + W2_AT, *dz2 = shared + DZ2_AT;
    float* z2 = (float*)(shared + Z2_AT);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, unit = 16 * warp;
    const int first = blockIdx.x * ROWS;
    const int from = CHUNKS * blockIdx.y / gridDim.y, to = CHUNKS * (blockIdx.y + 1) / gridDim.y;
    const long long begin = turn[ROWS_VISITED] + visit;
    const auto stage = [&](int chunk) { return shared + (chunk - from) % STAGES * STAGE; };

    // Rows and labels are there already, weights may still be at work.
    int rows[X_COPIES];
    find_rows(rows, order, begin, first, N);
    for (int chunk = from; chunk < from + STAGES - 1 && chunk < to; chunk++) copy_rows(stage(chunk), X, rows, chunk);
    const int n = first + threadIdx.x / SHARERS;  // the row of this thread's softmax
    const bool there = threadIdx.x < ROWS * SHARERS && n < N;
    const int label = there ? y[row_of(order, begin + n)] : -1;
    const float weight = !there ? 0.0f : weights ? weights[begin + n] : 1.0f;
    const int odd = turn[STEPS_TAKEN] + step & 1;
    if (follows) wait_for_all(arrived + STEP + !odd);
    else wait_for_last_kernel();
    if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) arrived[FORWARD + !odd] = 0;  // for the next step
    start_next_kernel();

    for (int part = threadIdx.x; part < 2 * WIDTH; part += THREADS)  // arrives with the first chunk
        copy_16(W2_halves + part / 2 * C_PITCH + part % 2 * 16, W2 + 8 * part, true);
    for (int chunk = from; chunk < from + STAGES - 1; chunk++) {
        if (chunk < to) copy_weights(stage(chunk), W1, chunk);
        end_copies();
    }
    // What is needed late is asked for early: whoever waits for memory here waits for the chunks anyway.
    float b1[2][2], b2[EACH];
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const int h = unit + 8 * (q / 2) + 2 * t + q % 2;
        b1[q / 2][q % 2] = h < H ? read_anew(parameters + HEAD + h) : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int o = i * SHARERS + threadIdx.x % SHARERS;
        b2[i] = o < O ? read_anew(parameters + P - O + o) : 0;
    }

    Sums z1 = {};
    for (int chunk = from; chunk < to; chunk++) {
        wait_copies<STAGES - 2>();
        __syncthreads();  // the chunk is there for all threads, and all have left the stage that is filled next
        const int next = chunk + STAGES - 1;
        if (next < to) {
            copy_rows(stage(next), X, rows, next);
            copy_weights(stage(next), W1, next);
        }
        end_copies();
        multiply_chunk(z1, stage(chunk), unit, g, t, chunk);
    }
    if (gridDim.y > 1 && !add_shares<8>(z1, parts, tickets)) return;

    // a1 = relu(z1 * pixel + b1) as halves: tiles of C, side by side, are an A
    unsigned a1[1][4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const float *z = z1.of[q / 2] + q % 2 * 2, *b = b1[q / 2];
        a1[0][q] = pack_halves(relu(z[0] * pixel + b[0]), relu(z[1] * pixel + b[1]));
    }
    second_layer(z2 + warp * ROWS * Z2_PITCH, a1, W2_halves + unit * C_PITCH, g, t);
    __syncthreads();
    float *db1 = (float*)shared, *dW2 = db1 + H, *db2 = dW2 + H * O, *totals = db2 + O;
    float loss = 0, right = 0;
    if (threadIdx.x < ROWS * SHARERS) softmax_cross_entropy(dz2, z2, b2, label, weight, loss, right);
    __syncthreads();
    unsigned dz[1][4];
    TailSums<1> sums = {};
    backward(dz, sums, a1, dz2, W2_halves + unit * C_PITCH, g, t);
#pragma unroll
    for (int q = 0; q < 4; q++) {
        const int n = first + g + q % 2 * 8;
        if (n < N) ((unsigned*)(dz1 + (long long)n * WIDTH + unit))[q / 2 * 4 + t] = dz[0][q];
    }
    write_sums(db1, dW2, db2, sums, O, 1, unit + 2 * t, 8, g, t);
    write_totals(totals, z2, loss, right);
    __syncthreads();
    for (int i = threadIdx.x; i < TAIL; i += THREADS) tails[(long long)blockIdx.x * TAIL + i] = ((float*)shared)[i];
    arrive(arrived + FORWARD + odd);
    wait_for_last_kernel();  // kernels end in their order
}
