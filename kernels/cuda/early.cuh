// For kernels that early.py launches: they may begin while the kernel launched before is at work.
#pragma once

#ifndef CUEMU

// A number as it is in the memory that all multiprocessors share. What stands in the cache of one of them may be from
// before: that is emptied when a kernel begins, but not while an early one waits.
template <class T> __device__ inline T read_anew(const T* at) { return __ldcg(at); }

// Waits until the kernel launched before has ended, and all it wrote is there.
__device__ inline void wait_for_last_kernel()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The kernel launched next may begin, once all blocks have come here.
__device__ inline void start_next_kernel()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
