// CUDA on the CPU, for tests: the unmodified .cu files are compiled as C++ behind this header.
//
// A block runs at a time; each of its threads is a fiber that runs until it meets the others at a barrier or a
// shuffle. Threads and blocks take their turns in an order drawn from a seed, shared memory starts as NaN, and a
// barrier that some threads never reach is an error. Not seen: races between blocks, and memory order on real cards.
#pragma once
#define CUEMU
#include <cmath>
#include <cstring>
#include <numeric>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__ static __attribute__((section("cuemu_shared")))

// The linker's names for both ends of that section; null if nothing is shared.
extern char __start_cuemu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cuemu_shared[] __attribute__((weak, visibility("hidden")));

using std::exp, std::expm1, std::fabs, std::log, std::pow, std::sqrt, std::tanh;

#define __launch_bounds__(...)

static inline unsigned __float_as_uint(float v) { unsigned bits; std::memcpy(&bits, &v, 4); return bits; }
static inline float __uint_as_float(unsigned bits) { float v; std::memcpy(&v, &bits, 4); return v; }

// The instructions that stand behind names of their own in real.cuh.
static inline unsigned short cvt_f16_f32(float v)
{
    const _Float16 half = (_Float16)v;
    unsigned short bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
static inline float cvt_f32_f16(unsigned short bits)
{
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return half;
}

struct Dimensions { unsigned x, y, z; };
static Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace cuemu {

constexpr unsigned WARP = 32, STACK = 32 << 10;
enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };
using Kernel = void (*)(void**);

struct Fiber {
    ucontext_t context;
    State state;
    unsigned from;                      // the lane whose value it wants
    unsigned long long sent, received;  // a shuffle's value, as bits
};

static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static unsigned current;
static Kernel kernel;
static void** arguments;
static unsigned long long chance;

static unsigned draw(unsigned below)
{
    chance = chance * 6364136223846793005ull + 1442695040888963407ull;
    return unsigned(chance >> 33) % below;
}

static std::vector<unsigned> random_order(unsigned count)
{
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    for (unsigned i = count; i > 1; i--) std::swap(order[i - 1], order[draw(i)]);
    return order;
}

static void wait(State state)
{
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

static void run_thread()
{
    kernel(arguments);
    wait(DONE);
}

static void resume(unsigned t)
{
    current = t;
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
    swapcontext(&scheduler, &fibers[t].context);
}

// Frees the threads [begin, end) if every one of them waits in `state`.
static bool release(unsigned begin, unsigned end, State state)
{
    for (unsigned t = begin; t < end; t++)
        if (fibers[t].state != state) return false;
    for (unsigned t = begin; t < end; t++) {
        if (state == AT_SHUFFLE) fibers[t].received = fibers[begin + fibers[t].from].sent;
        fibers[t].state = READY;
    }
    return true;
}

static const char* run_block(unsigned threads)
{
    if (__start_cuemu_shared) std::memset(__start_cuemu_shared, 0xff, __stop_cuemu_shared - __start_cuemu_shared);
    for (unsigned t = 0; t < threads; t++) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = &stacks[std::size_t(t) * STACK];
        fibers[t].context.uc_stack.ss_size = STACK;
        makecontext(&fibers[t].context, run_thread, 0);
        fibers[t].state = READY;
    }
    for (;;) {
        for (unsigned t : random_order(threads))
            if (fibers[t].state == READY) resume(t);
        bool freed = release(0, threads, AT_BARRIER);
        for (unsigned w = 0; w + WARP <= threads; w += WARP) freed |= release(w, w + WARP, AT_SHUFFLE);
        if (freed) continue;
        for (unsigned t = 0; t < threads; t++)
            if (fibers[t].state != DONE) return "a thread waits for ever: not all threads reach its barrier or shuffle";
        return nullptr;
    }
}

// shape: grid x, y, z and block x, y, z. Returns null, or what went wrong.
static const char* launch(Kernel k, void** a, const unsigned* shape, unsigned seed)
{
    kernel = k;
    arguments = a;
    chance = seed;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    if (threads > 1024) return "a block has at most 1024 threads";
    fibers.resize(threads);
    stacks.resize(std::size_t(threads) * STACK);
    for (unsigned b : random_order(gridDim.x * gridDim.y * gridDim.z)) {
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / (gridDim.x * gridDim.y)};
        if (const char* error = run_block(threads)) return error;
    }
    return nullptr;
}

}  // namespace cuemu

static void __syncthreads() { cuemu::wait(cuemu::AT_BARRIER); }

template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned lanes)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    if (mask != 0xffffffff) __builtin_trap();
    cuemu::Fiber& fiber = cuemu::fibers[cuemu::current];
    std::memcpy(&fiber.sent, &value, sizeof value);
    fiber.from = (cuemu::current % cuemu::WARP) ^ lanes;
    cuemu::wait(cuemu::AT_SHUFFLE);
    std::memcpy(&value, &fiber.received, sizeof value);
    return value;
}

static void __syncwarp() { __shfl_xor_sync(0xffffffff, 0, 0); }
