// What a layer needs beside its matrix products. Compiled with -DREAL=float or -DREAL=double.
//
// N rows, H units. Arrays are C-ordered. In bias_relu and mask a block is a tile of blockDim.y rows; the blockDim.x
// threads of a row walk along it side by side.

// z += b, then max(., 0) if relu
extern "C" __global__ void bias_relu(
    REAL* z,        // (N, H)  x W on entry
    const REAL* b,  // (H,)
    int relu, long long N, int H)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;
    for (int h = threadIdx.x; h < H; h += blockDim.x) {
        const REAL v = z[n * H + h] + b[h];
        z[n * H + h] = relu && v < 0 ? REAL(0) : v;  // a NaN is not below 0: it stays
    }
}

// d *= (a > 0): the derivative of ReLU, from its result
extern "C" __global__ void mask(
    REAL* d,        // (N, H)  dz W^T on entry
    const REAL* a,  // (N, H)
    long long N, int H)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;
    for (int h = threadIdx.x; h < H; h += blockDim.x)
        d[n * H + h] *= REAL(a[n * H + h] > 0);
}

#define COLUMNS 32  // blockDim.x: a warp reads 32 neighbours of one row
#define ROWS 8      // blockDim.y

// out[k] = the column sums of the rows that the k-th row of blocks takes, or added to out where `add`.
// gridDim.y = 1 gives the sums themselves. Every sum has its slot and its order: the same bits each time.
extern "C" __global__ void column_sum(
    const REAL* d,  // (N, H)
    REAL* out,      // (gridDim.y, H)
    int add, long long N, int H)
{
    __shared__ REAL part[ROWS][COLUMNS];
    const int h = blockIdx.x * COLUMNS + threadIdx.x;
    REAL sum = 0;
    if (h < H)
        for (long long n = blockIdx.y * ROWS + threadIdx.y; n < N; n += gridDim.y * ROWS)
            sum += d[n * H + h];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || h >= H) return;
    for (int k = 1; k < ROWS; k++)
        sum += part[k][threadIdx.x];
    REAL* slot = out + (long long)blockIdx.y * H + h;
    *slot = add ? *slot + sum : sum;
}
