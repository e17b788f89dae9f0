#include "tensor.cuh"

// The weights as halves, where another hand has moved them
extern "C" __global__ void tensor_halves(
    const float* w,  // (P,)
    f16* W1,         // (BYTES, WIDTH)
    f16* W2,         // (WIDTH, 16)
    int* arrived)    // (4,)  all counters of tensor.cuh, back to 0: the next step is the first
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x, o = i - HEAD - H;
    if (i < 4) arrived[i] = 0;
    if (i < HEAD) keep(W1 + i / H * WIDTH + i % H, w[i]);
    else if (o >= 0 && o < H * O) keep(W2 + o / O * 16 + o % O, w[i]);
}
