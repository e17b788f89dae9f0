// The rows of a batch, ready for the first layer. Compiled with -DREAL=float or -DREAL=double.
//
// M rows of data, N rows of the batch, I inputs. Arrays are C-ordered. A block is a tile of blockDim.y rows; the
// blockDim.x threads of a row walk along it side by side.

// out[n, i] = X[index[n], i] * pixel; pixel is 1/255 where X holds pixels, else 1
template <class From, class Index>
__device__ void gather(const From* X, const Index* index, REAL pixel, REAL* out, long long N, int I)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;
    const From* row = X + (long long)index[n] * I;
    for (int i = threadIdx.x; i < I; i += blockDim.x)
        out[n * I + i] = row[i] * pixel;
}

extern "C" __global__ void gather_uint8_int32(
    const unsigned char* X,  // (M, I)
    const int* index,        // (N,)  0 .. M-1
    REAL pixel,
    REAL* out,               // (N, I)
    long long N, int I)
{
    gather(X, index, pixel, out, N, I);
}

extern "C" __global__ void gather_uint8_int64(
    const unsigned char* X,  // (M, I)
    const long long* index,  // (N,)  0 .. M-1
    REAL pixel,
    REAL* out,               // (N, I)
    long long N, int I)
{
    gather(X, index, pixel, out, N, I);
}

extern "C" __global__ void gather_real_int32(
    const REAL* X,     // (M, I)
    const int* index,  // (N,)  0 .. M-1
    REAL pixel,
    REAL* out,         // (N, I)
    long long N, int I)
{
    gather(X, index, pixel, out, N, I);
}

extern "C" __global__ void gather_real_int64(
    const REAL* X,           // (M, I)
    const long long* index,  // (N,)  0 .. M-1
    REAL pixel,
    REAL* out,               // (N, I)
    long long N, int I)
{
    gather(X, index, pixel, out, N, I);
}

// out = X * pixel, for rows that lie side by side
extern "C" __global__ void scale_uint8(
    const unsigned char* X,  // (N, I)
    REAL pixel,
    REAL* out,               // (N, I)
    long long N, int I)
{
    const long long n = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (n >= N) return;
    for (int i = threadIdx.x; i < I; i += blockDim.x)
        out[n * I + i] = X[n * I + i] * pixel;
}
