// Tensor cores and what feeds them, sm_80 and up: every PTX instruction behind one name, so that the kernels which use
// them run on the CPU too, where tests/cuda/cuemu.h has the same names.
//
// A warp multiplies (16, 16) by (16, 8). Its 32 lanes hold the matrices in fragments, registers of two halves or one
// float. Lane 4 g + t (g = 0 .. 7, t = 0 .. 3) holds
//
//     A (16, 16)   a[0]  row g,  columns 2t, 2t+1         B (16, 8)   b0  rows 2t, 2t+1,  column g
//                  a[1]  row g+8,      2t, 2t+1                       b1       2t+8, 2t+9
//                  a[2]  row g,        2t+8, 2t+9         C (16, 8)   c[0], c[1]  row g,  columns 2t, 2t+1
//                  a[3]  row g+8,      2t+8, 2t+9                     c[2], c[3]  row g+8
//
// so two neighbouring C, rounded to halves, are an A.
#pragma once
#include "real.cuh"
#include "early.cuh"

#ifndef CUEMU

#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// 4 bytes; the address divides by 4
__device__ inline unsigned word(const void* at) { return *(const unsigned*)at; }

__device__ inline unsigned shared_address(const void* shared)
{
    return (unsigned)__cvta_generic_to_shared(shared);
}

// 16 bytes on their way from global to shared memory, zeros where they are not `there`; both addresses divide by 16.
// They are there after `wait_copies`, and for other threads after a barrier behind it.
__device__ inline void copy_16(void* shared, const void* global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0) : "memory");
}

// Ends a group: what this thread has sent on its way since the last.
__device__ inline void end_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until no more than this thread's last N groups are on their way.
template <int N> __device__ inline void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

// Waits until the number is there that other blocks count up to, and what they wrote before they counted.
__device__ inline void wait_until(const int* counter, int number)
{
    int found;
    do
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(found) : "l"(counter) : "memory");
    while (found != number);
}

// c += a b
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four (8, 8) matrices of halves in shared memory, transposed: r[q] of lane 4 g + t gets rows 2t and 2t+1 of column g.
// Lane 8 q + i gives the address of row i of matrix q, 16 bytes.
__device__ inline void load_transposed_4(unsigned (&r)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// An (8, 8) matrix of halves transposed within the warp: lane 4 g + t gives row g, columns 2t and 2t+1, and gets rows
// 2t and 2t+1 of column g.
__device__ inline unsigned transpose(unsigned halves)
{
    unsigned turned;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(halves));
    return turned;
}

// Four of the eight bytes of a (0 .. 3) and b (4 .. 7), picked by the selector's hexadecimal digits, the last first.
__device__ inline unsigned pick_bytes(unsigned a, unsigned b, unsigned selector)
{
    return __byte_perm(a, b, selector);
}

__device__ inline unsigned subtract_halves(unsigned a, unsigned b)
{
    unsigned difference;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}

// Rounded to the nearest; beyond 65504 infinity.
__device__ inline unsigned pack_halves(float low, float high)
{
    unsigned packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

#endif

// Bytes 0 and 1, or 2 and 3, as halves: a half whose bits are 0x6400 + v is 1024 + v, so all is exact.
__device__ inline unsigned low_bytes(unsigned v)
{
    return subtract_halves(pick_bytes(v, 0x64646464, 0x4140), 0x64006400);
}

__device__ inline unsigned high_bytes(unsigned v)
{
    return subtract_halves(pick_bytes(v, 0x64646464, 0x4342), 0x64006400);
}

// Bytes from row to row of an array in shared memory: an odd number of 16 bytes, so that eight rows' 16 bytes at one
// column lie in different banks.
__host__ __device__ constexpr int spread(int bytes) { return ((bytes + 15) / 16 | 1) * 16; }

__host__ __device__ constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

__host__ __device__ constexpr int divided_up(int value, int by) { return (value + by - 1) / by; }

// The address that this lane gives for its row of two (16, 8) matrices of halves side by side in shared memory
__device__ inline const unsigned char* row_for_lane(const unsigned char* matrices, int pitch)
{
    const int lane = threadIdx.x % 32;
    return matrices + (lane % 16) * pitch + lane / 16 * 16;
}

// The row of a weight matrix in shared memory that is input k. A lane reads four neighbouring inputs at once and takes
// them for columns 2t, 2t+1, 2t+8, 2t+9 of a fragment A: within every 16 inputs, the rows stand in that order.
__device__ inline int input_row(int k)
{
    return (k & ~15) | (k & 2) << 2 | (k >> 1 & 6) | (k & 1);
}
