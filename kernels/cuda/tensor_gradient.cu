// dW1 = X^T dz1: the first layer's part of network.gradients. dz1 as tensor_forward wrote it.
//
// A block takes INPUT_WARPS * 16 * INPUT_TILES inputs, all hidden units, and a share of the rows; blockIdx is (inputs,
// share). The rows run in chunks through a ring of STAGES in shared memory. Each share has its slot for the result.
#include "tensor.cuh"

constexpr int UNIT_TILES = WIDTH / 8 / UNIT_WARPS;  // of 8, of a warp
constexpr int WARP_INPUTS = 16 * INPUT_TILES, WARP_UNITS = 8 * UNIT_TILES;
constexpr int BLOCK_INPUTS = WARP_INPUTS * INPUT_WARPS;
constexpr int THREADS = 32 * INPUT_WARPS * UNIT_WARPS;
constexpr int PAIRS = INPUT_TILES / 2, ALONE = INPUT_TILES % 2;

constexpr int X_PITCH = spread(BLOCK_INPUTS), D_PITCH = spread(2 * WIDTH);
constexpr int STAGE = CHUNK * (X_PITCH + D_PITCH);
static_assert(SHARED_BYTES == STAGES * STAGE, "tensor_tiles.py and this file count differently");
static_assert(WIDTH == 8 * UNIT_TILES * UNIT_WARPS && CHUNK % 16 == 0, "sizes the tiles cannot hold");

// Sends rows of X, (CHUNK, BLOCK_INPUTS) bytes, and of dz1, (CHUNK, WIDTH) halves, on their way into a stage; 0
// behind the last row.
__device__ inline void copy_chunk(
    unsigned char* stage, const unsigned char* X, const int* index, const f16* dz1, int input, int first, int N)
{
    constexpr int X_PARTS = BLOCK_INPUTS / 16, D_PARTS = WIDTH / 8;  // of 16 bytes, in a row
    for (int c = threadIdx.x; c < CHUNK * X_PARTS; c += THREADS) {
        const int row = c / X_PARTS, byte = c % X_PARTS * 16;
        const bool there = first + row < N && input + byte < BYTES;
        const long long at = there ? row_of(index, first + row) * BYTES + input + byte : 0;
        copy_16(stage + row * X_PITCH + byte, X + at, there);
    }
    stage += CHUNK * X_PITCH;
    for (int c = threadIdx.x; c < CHUNK * D_PARTS; c += THREADS) {
        const int row = c / D_PARTS, part = c % D_PARTS;
        const bool there = first + row < N;
        const long long at = there ? (long long)(first + row) * WIDTH + 8 * part : 0;
        copy_16(stage + row * D_PITCH + 16 * part, dz1 + at, there);
    }
}

// Two fragments' halves of X^T from four rows: bytes 2 pair and 2 pair + 1 of each are the two inputs of a column pair.
// a[0], a[2] get the first input in rows 2t, 2t+1 and 2t+8, 2t+9; a[1], a[3] the second.
__device__ inline void turn_bytes(unsigned (&a)[4], const unsigned (&rows)[4], int pair)
{
    const unsigned selector = pair ? 0x7362 : 0x5140;  // a byte of the one, the same byte of the other, twice
    const unsigned near = pick_bytes(rows[0], rows[1], selector), far = pick_bytes(rows[2], rows[3], selector);
    a[0] = low_bytes(near), a[1] = high_bytes(near), a[2] = low_bytes(far), a[3] = high_bytes(far);
}

// dW += X^T dz1 over a chunk. A lane reads four neighbouring inputs of a row at once, and two of the last tile where
// their number is odd: C's row g is input 4g or 4g+2 of 32, or 2g of 16; row g+8 the one behind it.
__device__ inline void multiply_chunk(
    float (&dW)[INPUT_TILES][UNIT_TILES][4], const unsigned char* stage, int input, int unit, int g, int t)
{
    const unsigned char* x = stage + 2 * t * X_PITCH + input;
    const unsigned char* d = row_for_lane(stage + CHUNK * X_PITCH + 2 * unit, D_PITCH);
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
        unsigned a[INPUT_TILES][4], b[UNIT_TILES][2];
        const unsigned char* row[4] = {x + k * X_PITCH, x + (k + 1) * X_PITCH, x + (k + 8) * X_PITCH, x + (k + 9) * X_PITCH};
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            unsigned rows[4];
#pragma unroll
            for (int r = 0; r < 4; r++) rows[r] = word(row[r] + 32 * i + 4 * g);
            turn_bytes(a[2 * i], rows, 0);
            turn_bytes(a[2 * i + 1], rows, 1);
        }
        if (ALONE) {
            unsigned rows[4];
#pragma unroll
            for (int r = 0; r < 4; r++) rows[r] = *(const unsigned short*)(row[r] + 32 * PAIRS + 2 * g);
            turn_bytes(a[INPUT_TILES - 1], rows, 0);
        }
        load_columns(b, d + k * D_PITCH);
#pragma unroll
        for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
            for (int i = 0; i < INPUT_TILES; i++) multiply_add(dW[i][j], a[i], b[j][0], b[j][1]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_gradient(
    const unsigned char* X,  // (M, BYTES)
    const int* index,        // (N,)        rows of X in the order of the batch; null: the first N
    const f16* dz1,          // (N, WIDTH)
    float* heads,            // (gridDim.y, HEAD)
    int N,
    int share)               // rows of a share, a multiple of CHUNK
{
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int block_input = (int)blockIdx.x * BLOCK_INPUTS, input = warp / UNIT_WARPS * WARP_INPUTS;
    const int unit = warp % UNIT_WARPS * WARP_UNITS;
    const int first = (int)blockIdx.y * share, chunks = (at_most(share, N - first) + CHUNK - 1) / CHUNK;
    const auto copy = [&](int c) {
        if (c < chunks) copy_chunk(shared + c % STAGES * STAGE, X, index, dz1, block_input, first + c * CHUNK, N);
        end_copies();
    };

    float dW[INPUT_TILES][UNIT_TILES][4] = {};
    for (int c = 0; c < STAGES - 1; c++) copy(c);
    for (int c = 0; c < chunks; c++) {
        wait_copies<STAGES - 2>();
        __syncthreads();  // the chunk is there for all threads, and all have left the stage that is filled next
        copy(c + STAGES - 1);
        multiply_chunk(dW, shared + c % STAGES * STAGE, input, unit, g, t);
    }

    float* head = heads + (long long)blockIdx.y * HEAD;
#pragma unroll
    for (int i = 0; i < INPUT_TILES; i++) {
        const int of_warp = i < 2 * PAIRS ? 32 * (i / 2) + 4 * g + 2 * (i % 2) : 32 * PAIRS + 2 * g;
#pragma unroll
        for (int j = 0; j < UNIT_TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int k = block_input + input + of_warp + e / 2, h = unit + 8 * j + 2 * t + e % 2;
                if (k < I && h < H) head[k * H + h] = dW[i][j][e];
            }
    }
}
