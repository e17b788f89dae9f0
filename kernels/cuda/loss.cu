// Softmax, cross-entropy, its gradient and the right answers. Compiled with -DREAL=float or -DREAL=double.
//
// N rows, O classes. Arrays are C-ordered.

#define LANES 32       // blockDim.x: one warp a row
#define ALL 0xffffffff
#define THREADS 256    // blockDim.x of add_totals, a power of two

// dz = (softmax(z) - onehot(y)) * scale; the loss of a row and whether it is right go to the row's own slots
extern "C" __global__ void softmax_cross_entropy(
    const REAL* z,  // (N, O)
    const int* y,   // (N,)    0 .. O-1
    REAL scale,     // 1 / (rows of the batch)
    REAL* dz,       // (N, O)  may be z itself
    double* rows,   // (2, N)  logsumexp(z) - z[y]; 1 if the first largest z is at y, else 0
    long long N, int O)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;  // the whole warp leaves
    z += n * O;
    dz += n * O;

    const REAL target = z[y[n]];
    REAL top = z[0];
    int best = 0;
    for (int o = threadIdx.x; o < O; o += LANES)
        if (z[o] > top) { top = z[o]; best = o; }
    for (int lane = LANES / 2; lane > 0; lane /= 2) {
        const REAL v = __shfl_xor_sync(ALL, top, lane);
        const int o = __shfl_xor_sync(ALL, best, lane);
        if (v > top || (v == top && o < best)) { top = v; best = o; }
    }

    REAL total = 0;
    for (int o = threadIdx.x; o < O; o += LANES)
        total += exp(z[o] - top);  // at most 1: cannot overflow
    for (int lane = LANES / 2; lane > 0; lane /= 2)
        total += __shfl_xor_sync(ALL, total, lane);

    __syncwarp();  // all lanes have read z[0] and z[y] before one of them writes there
    const REAL share = scale / total;
    for (int o = threadIdx.x; o < O; o += LANES)
        dz[o] = exp(z[o] - top) * share - (o == y[n] ? scale : REAL(0));
    if (threadIdx.x == 0) {
        rows[n] = log(total) - (target - top);  // total is at least 1: the logarithm is finite
        rows[N + n] = best == y[n];
    }
}

// totals += the sums over the rows. One block a total, and a fixed order: the same bits each time
extern "C" __global__ void add_totals(
    const double* rows,  // (2, N)
    double* totals,      // (2,)
    long long N)
{
    __shared__ double part[THREADS];
    double sum = 0;
    for (long long n = threadIdx.x; n < N; n += THREADS)
        sum += rows[blockIdx.x * N + n];
    part[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) totals[blockIdx.x] += part[0];
}
