// Arrays (N, W) element by element.
//
// A block takes TAKEN neighbours in C order, whatever the width: no thread is idle at the end of a row. Each
// thread reads all of its elements before it writes the first. One by one each would be waited for: a read may not go
// ahead of a write which, for all that the compiler knows, changes what is read.
#pragma once

#define THREADS 256  // blockDim.x
#define EACH 4       // elements of a thread, THREADS apart
#define TAKEN (EACH * THREADS)

inline __device__ long long blocks_of(long long elements) { return (elements + TAKEN - 1) / TAKEN; }

// Calls write(j, read(j, n, w)) for each element that a block takes, j = n W + w
template <class Read, class Write>
__device__ void each(long long block, long long N, int W, Read read, Write write)
{
    const long long first = block * TAKEN, row = first / W, left = N * W - first;
    const unsigned column = unsigned(first - row * W);
    decltype(read(first, row, 0)) v[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        unsigned i = k * THREADS + threadIdx.x;
        if (i >= left) i = unsigned(left - 1);  // the last again: branches would keep the reads apart
        v[k] = read(first + i, row + (column + i) / W, int((column + i) % W));
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const unsigned i = k * THREADS + threadIdx.x;
        if (i < left) write(first + i, v[k]);
    }
}
