// What middle.cu does, on tensor cores: z, of the last hidden layer before its bias, as halves becomes dz in one pass
// over the rows, which leaves the partial sums for the last layer and the biases. Operands are rounded to halves, as
// for the products that this stands in for; sums and what lies between are float32.
//
// N rows, H hidden units, O classes. A block takes tiles of 16 rows, one after the other. While one is at work the next
// is on its way, z into registers of the threads that will need it. Sums stay in registers until all tiles are done.
// A warp has 32 units: with 16 there would be twice as many warps, each with all that is the same for them.
#include "primitives.cuh"

enum : int {
    H = HIDDEN, O = CLASSES,
    FRAGMENTS = 2,  // of 16 units, of a warp
    WIDTH = (H + 16 * FRAGMENTS - 1) / (16 * FRAGMENTS) * (16 * FRAGMENTS),
    THREADS = WIDTH / FRAGMENTS * 2,
    ROWS = 16       // of a tile
};
#include "tensor_tail.cuh"

// Blocks that a multiprocessor has room for: while some wait for a barrier or for memory, others work. So many leave a
// thread the 96 registers that it needs.
constexpr int BLOCKS = at_most(640 / THREADS, 16);

// A lane has four neighbouring units of a row, and reads and writes them at once if all rows begin where that can be.
constexpr int AT_ONCE = H % 4 == 0 ? 4 : H % 2 == 0 ? 2 : 1;
struct __align__(8) FourHalves { unsigned pairs[2]; };

// Units h .. h+3 of a row as halves, 0 behind the last
__device__ inline FourHalves read_four(const f16* row, int h)
{
    FourHalves found = {};
    if (AT_ONCE == 4) {
        if (h < H) found = *(const FourHalves*)(row + h);
    } else
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int k = h + 2 * j;
            if (AT_ONCE == 2) {
                if (k < H) found.pairs[j] = word(row + k);
            } else {
                if (k < H) found.pairs[j] = row[k].bits;
                if (k + 1 < H) found.pairs[j] |= (unsigned)row[k + 1].bits << 16;
            }
        }
    return found;
}

__device__ inline void write_four(f16* row, int h, FourHalves four)
{
    if (AT_ONCE == 4) {
        if (h < H) *(FourHalves*)(row + h) = four;
    } else
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int k = h + 2 * j;
            if (AT_ONCE == 2) {
                if (k < H) *(unsigned*)(row + k) = four.pairs[j];
            } else {
                if (k < H) row[k].bits = (unsigned short)four.pairs[j];
                if (k + 1 < H) row[k + 1].bits = (unsigned short)(four.pairs[j] >> 16);
            }
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_middle(
    f16* z,          // (N, H)  h W on entry, dz on return; h and W of the last hidden layer
    const float* b,  // (H,)
    const float* V,  // (H, O)  weights of the last layer
    const float* c,  // (O,)    biases of the last layer
    const int* y,    // (N,)    0 .. O-1
    float* parts,    // (gridDim.y, C)  dV transposed (O, H), db (H), dc (O), sum of losses, right answers
    int C, int N)
{
    alignas(16) __shared__ unsigned char V_halves[WIDTH * C_PITCH];  // V as halves, 0 behind the units and the classes
    alignas(16) __shared__ unsigned char d[ROWS * C_PITCH];          // dz of the last layer as halves
    __shared__ float bias[WIDTH];                                    // b, 0 behind the units
    __shared__ float logits[WARPS * ROWS * Z2_PITCH];                // each warp's part of a V
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int unit = 16 * FRAGMENTS * warp, h = unit + 4 * t;  // the first of this lane; see input_row
    const unsigned char* own_V = V_halves + unit * C_PITCH;
    const int step = gridDim.y * ROWS;

    FourHalves coming[FRAGMENTS][2];  // z of this lane's units in rows g and g+8 of the next tile
    int coming_label;
    const auto ask_for = [&](int begin) {
#pragma unroll
        for (int i = 0; i < 2 * FRAGMENTS; i++) {
            const int n = begin + g + 8 * (i % 2);
            coming[i / 2][i % 2] = n < N ? read_four(z + (long long)n * H, h + 16 * (i / 2)) : FourHalves{};
        }
        const int n = begin + threadIdx.x / SHARERS;  // the row of this thread's softmax
        coming_label = threadIdx.x < ROWS * SHARERS && n < N ? y[n] : -1;
    };
    constexpr int PARTS = WIDTH * 16 / THREADS;
    float own[PARTS];  // of V: all are asked for before the first is needed
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        const int i = k * THREADS + threadIdx.x;
        own[k] = i / 16 < H && i % 16 < O ? read_anew(V + i / 16 * O + i % 16) : 0;
    }
    float c_own[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int o = i * SHARERS + threadIdx.x % SHARERS;
        c_own[i] = o < O ? read_anew(c + o) : 0;
    }
    for (int k = threadIdx.x; k < WIDTH; k += THREADS) bias[k] = k < H ? read_anew(b + k) : 0;
    wait_for_last_kernel();  // the product that makes z; the parameters have long been there
    int begin = blockIdx.y * ROWS;
    ask_for(begin);
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        const int i = k * THREADS + threadIdx.x;
        keep((f16*)(V_halves + input_row(i / 16) * C_PITCH) + i % 16, own[k]);
    }
    __syncthreads();

    TailSums<FRAGMENTS> sums = {};
    float losses = 0, answers = 0;
    for (; begin < N; begin += step) {
        const int label = coming_label;
        unsigned a[FRAGMENTS][4], dz[FRAGMENTS][4];  // relu(z + b) as halves; what becomes of it
#pragma unroll
        for (int i = 0; i < 4 * FRAGMENTS; i++) {
            const int k = i / 4, j = i / 2 % 2, half = i % 2;
            const float* own_bias = bias + h + 16 * k + 2 * j;
            const unsigned pair = coming[k][half].pairs[j];
            const float low = number(f16{(unsigned short)pair}), high = number(f16{(unsigned short)(pair >> 16)});
            a[k][2 * j + half] = pack_halves(relu(low + own_bias[0]), relu(high + own_bias[1]));
        }
        ask_for(begin + step);
        second_layer(logits + warp * ROWS * Z2_PITCH, a, own_V, g, t);
        __syncthreads();
        float loss = 0, right = 0;
        if (threadIdx.x < ROWS * SHARERS)
            softmax_cross_entropy(d, logits, c_own, label, label < 0 ? 0.0f : 1.0f, loss, right);
        __syncthreads();
        losses += loss, answers += right;
        backward(dz, sums, a, d, own_V, g, t);
#pragma unroll
        for (int i = 0; i < 2 * FRAGMENTS; i++) {
            const int k = i / 2, half = i % 2;
            const int n = begin + g + 8 * half;
            if (n < N) write_four(z + (long long)n * H, h + 16 * k, FourHalves{dz[k][half], dz[k][2 + half]});
        }
    }  // no barrier: what the next tile overwrites, the logits and then d behind a barrier, all threads have read

    float *slot = parts + (long long)blockIdx.y * C, *db = slot + O * H, *dc = db + H;
    write_sums(db, slot, dc, sums, 1, H, h, 2, g, t);
    write_totals(dc + O, logits, losses, answers);
}
