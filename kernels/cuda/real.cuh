// How numbers are kept, and what they are computed in.
//
// REAL, float or double: the parameters, the gradient, and all arithmetic.
// ITEM, float, double, f16 or bf16: the operands of products, that is rows, activations, deltas, a copy of the weights.
// Classes are numbers too, int.
#pragma once

struct f16 { unsigned short bits; };   // IEEE 754 half precision
struct bf16 { unsigned short bits; };  // the upper half of a float

#ifndef CUEMU  // one instruction each; the emulator has them under the same names
inline __device__ unsigned short cvt_f16_f32(float v)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
inline __device__ float cvt_f32_f16(unsigned short bits)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
#endif

inline __device__ float number(float v) { return v; }
inline __device__ double number(double v) { return v; }
inline __device__ float number(unsigned char v) { return v; }
inline __device__ int number(int v) { return v; }
inline __device__ float number(f16 v) { return cvt_f32_f16(v.bits); }
inline __device__ float number(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }

inline __device__ void keep(int* to, int v) { *to = v; }
inline __device__ void keep(float* to, REAL v) { *to = float(v); }
inline __device__ void keep(double* to, REAL v) { *to = v; }
inline __device__ void keep(f16* to, REAL v) { to->bits = cvt_f16_f32(float(v)); }
inline __device__ void keep(bf16* to, REAL v)
{
    const unsigned bits = __float_as_uint(float(v));
    if ((bits & 0x7fffffff) > 0x7f800000) to->bits = 0x7fff;  // a NaN stays one
    else to->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to the nearest, of two equally near the even one
}

// Partial sums. Whatever writes a delta also sums its columns: the k-th of K shares of the rows into row k of
// parts (K, C). `finish` adds up the shares. Every sum has its slot and its order: the same bits each time.
struct Slots {
    REAL* parts;  // (K, C), at the first of the columns meant
    int C;
};
inline __device__ REAL* slot(Slots s, int column) { return s.parts + (long long)blockIdx.y * s.C + column; }
