// CUDA on the CPU, for tests: the unmodified .cu files are compiled as C++ behind this header.
//
// A block runs at a time; each of its threads is a fiber that runs until it meets the others at a barrier, or those of
// its warp at what a warp does together: shuffles, and the tensor cores' work of primitives.cuh. Threads and blocks take
// their turns in an order drawn from a seed, shared memory starts as NaN, and a barrier that some threads never reach is
// an error. An asynchronous copy lands no sooner than its thread waits for it; until then its place holds NaN. Not seen:
// races between blocks, bank conflicts, and memory order on real cards.
#pragma once
#define CUEMU
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <csetjmp>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static __attribute__((section("cuemu_shared")))

// The linker's names for both ends of that section; null if nothing is shared.
extern char __start_cuemu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cuemu_shared[] __attribute__((weak, visibility("hidden")));

using std::exp, std::expm1, std::fabs, std::log, std::pow, std::sqrt, std::tanh;

static inline unsigned __float_as_uint(float v) { unsigned bits; std::memcpy(&bits, &v, 4); return bits; }
static inline float __uint_as_float(unsigned bits) { float v; std::memcpy(&v, &bits, 4); return v; }

// ---- real.cuh

static float cvt_f32_f16(unsigned short bits)
{
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
        : std::ldexp(float(fraction + (exponent ? 1024 : 0)), int(exponent ? exponent : 1) - 25);
    return bits >> 15 ? -size : size;
}

// To the nearest, of two as near the even one.
static unsigned short cvt_f16_f32(float value)
{
    const float size = std::fabs(value);
    const unsigned sign = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    if (size == 0) return sign;
    int exponent;
    std::frexp(size, &exponent);
    const int step = std::max(exponent - 11, -24);  // a half counts in 2^step here; nearbyint rounds to even
    const unsigned count = unsigned(std::nearbyint(std::ldexp(size, -step)));
    return sign | (count + (step + 24) * 1024);     // a count of 2048 carries into the exponent
}

struct Dimensions { unsigned x, y, z; };
static Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace cuemu {

constexpr unsigned WARP = 32, STACK = 32 << 10;
enum State { NEW, READY, AT_BARRIER, IN_WARP, DONE };
using Kernel = void (*)(void**);
using Together = void (*)(void**);  // what a warp does at once, given a record of each lane

struct Copy { void* to; const void* from; };  // of 16 bytes; from null: of zeros

struct Fiber {
    State state = NEW;
    bool started;
    ucontext_t entry;
    jmp_buf place;  // where it waits: unlike swapcontext, a jump there needs no system call
    std::unique_ptr<char[]> stack = std::unique_ptr<char[]>(new char[STACK]);
    Together together;
    void* record;
    std::vector<std::vector<Copy>> copies;  // under way, a group each; the last is still open
};

static std::deque<Fiber> fibers;  // they run one kernel after another
static std::vector<unsigned char> dynamic;  // shared memory that the launch asked for, and a margin behind it
static std::size_t dynamic_bytes;
static unsigned char* dynamic_shared;
static const char* failure;  // the first, or null
static jmp_buf scheduler;
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
    if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
}

static void run_thread()
{
    for (;;) {
        kernel(arguments);
        wait(DONE);
    }
}

static void resume(unsigned t)
{
    current = t;
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
    Fiber& fiber = fibers[t];
    if (_setjmp(scheduler) != 0) return;  // it waits
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.entry);
}

static void make(Fiber& fiber)
{
    getcontext(&fiber.entry);
    fiber.entry.uc_stack.ss_sp = fiber.stack.get();
    fiber.entry.uc_stack.ss_size = STACK;
    makecontext(&fiber.entry, run_thread, 0);
    fiber.started = false;
}

static void fail(const char* what)
{
    if (!failure) failure = what;
}

// Frees the threads [begin, end) if every one of them waits in `state`.
static bool release(unsigned begin, unsigned end, State state)
{
    for (unsigned t = begin; t < end; t++)
        if (fibers[t].state != state) return false;
    for (unsigned t = begin; t < end; t++) fibers[t].state = READY;
    return true;
}

// What the lanes of a warp do together, once all of them have come to it.
static bool run_warp(unsigned begin)
{
    if (!release(begin, begin + WARP, IN_WARP)) return false;
    void* records[WARP];
    for (unsigned lane = 0; lane < WARP; lane++) {
        records[lane] = fibers[begin + lane].record;
        if (fibers[begin + lane].together != fibers[begin].together) fail("the lanes of a warp do different things");
    }
    if (!failure) fibers[begin].together(records);
    return true;
}

// This lane's part in what its warp does at once.
static void in_warp(void* record, Together together)
{
    fibers[current].record = record;
    fibers[current].together = together;
    wait(IN_WARP);
}

static const char* run_block(unsigned threads)
{
    if (__start_cuemu_shared) std::memset(__start_cuemu_shared, 0xff, __stop_cuemu_shared - __start_cuemu_shared);
    std::fill(dynamic.begin(), dynamic.end(), 0xff);
    for (unsigned t = 0; t < threads; t++) {
        fibers[t].copies.assign(1, {});
        if (fibers[t].state != DONE) make(fibers[t]);  // a new one, or stuck in a kernel that failed
        fibers[t].state = READY;
    }
    for (;;) {
        for (unsigned t : random_order(threads))
            if (fibers[t].state == READY) resume(t);
        bool freed = release(0, threads, AT_BARRIER);
        for (unsigned w = 0; w + WARP <= threads; w += WARP) freed |= run_warp(w);
        if (failure) return failure;
        if (freed) continue;
        for (unsigned t = 0; t < threads; t++)
            if (fibers[t].state != DONE) return "a thread waits for ever: not all threads reach its barrier or shuffle";
        for (unsigned char* end = dynamic_shared + dynamic_bytes; end < &dynamic.back(); end++)
            if (*end != 0xff) return "wrote behind its shared memory";
        return nullptr;
    }
}

// shape: grid x, y, z and block x, y, z. shared: bytes of dynamic shared memory. Returns null, or what went wrong.
static const char* launch(Kernel k, void** a, const unsigned* shape, unsigned seed, unsigned shared)
{
    kernel = k;
    arguments = a;
    chance = seed;
    failure = nullptr;
    dynamic_bytes = shared;
    dynamic.resize(shared + 256);
    dynamic_shared = dynamic.data() + (16 - reinterpret_cast<std::uintptr_t>(dynamic.data()) % 16) % 16;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    if (threads > 1024) return "a block has at most 1024 threads";
    while (fibers.size() < threads) fibers.emplace_back();
    for (unsigned b : random_order(gridDim.x * gridDim.y * gridDim.z)) {
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / (gridDim.x * gridDim.y)};
        if (const char* error = run_block(threads)) return error;
    }
    return nullptr;
}

}  // namespace cuemu

static void __syncthreads() { cuemu::wait(cuemu::AT_BARRIER); }

// Whether it is true of any thread of the block.
static bool __syncthreads_or(bool here)
{
    static bool any;
    any = false;
    __syncthreads();
    any |= here;
    __syncthreads();
    return any;
}

// A block runs at a time, so that nothing comes between, and all sees the same memory.
static int atomicAdd(int* at, int number) { return (*at += number) - number; }
static void __threadfence() {}

template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned lanes)
{
    struct Record { T sent, received; unsigned from; } record = {value, value, (cuemu::current % cuemu::WARP) ^ lanes};
    if (mask != 0xffffffff) cuemu::fail("a shuffle of a part of the warp");
    cuemu::in_warp(&record, [](void** records) {
        for (unsigned lane = 0; lane < cuemu::WARP; lane++) {
            Record& to = *static_cast<Record*>(records[lane]);
            to.received = static_cast<Record*>(records[to.from])->sent;
        }
    });
    return record.received;
}

static void __syncwarp() { __shfl_xor_sync(0xffffffff, 0, 0); }

// ---- primitives.cuh. Lane 4 g + t holds of every matrix what is said there.

#define DYNAMIC_SHARED(name) unsigned char* name = cuemu::dynamic_shared

namespace cuemu {

struct Halves {  // every half as a float
    std::vector<float> value;
    Halves() : value(1 << 16) { for (unsigned bits = 0; bits < value.size(); bits++) value[bits] = cvt_f32_f16(bits); }
};
static const Halves halves;

static float low(unsigned pair) { return halves.value[pair & 0xffff]; }
static float high(unsigned pair) { return halves.value[pair >> 16]; }

static bool divides(const void* address, unsigned bytes) { return reinterpret_cast<std::uintptr_t>(address) % bytes == 0; }

}  // namespace cuemu

static unsigned word(const void* at)
{
    if (!cuemu::divides(at, 4)) cuemu::fail("4 bytes read at an address that does not divide by 4");
    unsigned value;
    std::memcpy(&value, at, 4);
    return value;
}

static void copy_16(void* shared, const void* global, bool there)
{
    const unsigned char* to = static_cast<unsigned char*>(shared);
    if (!cuemu::divides(shared, 16) || !cuemu::divides(global, 16)) cuemu::fail("16 bytes copied, not divided by 16");
    if (to < cuemu::dynamic_shared || to + 16 > cuemu::dynamic_shared + cuemu::dynamic_bytes)
        return cuemu::fail("a copy to outside of shared memory");
    std::memset(shared, 0xff, 16);
    cuemu::fibers[cuemu::current].copies.back().push_back({shared, there ? global : nullptr});
}

static void end_copies() { cuemu::fibers[cuemu::current].copies.emplace_back(); }

template <int N> void wait_copies()
{
    auto& groups = cuemu::fibers[cuemu::current].copies;
    for (; groups.size() > N + 1; groups.erase(groups.begin()))
        for (const cuemu::Copy& copy : groups.front())
            if (copy.from) std::memcpy(copy.to, copy.from, 16); else std::memset(copy.to, 0, 16);
}

static void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    struct Record { float* c; const unsigned* a; unsigned b[2]; } record = {c, a, {b0, b1}};
    cuemu::in_warp(&record, [](void** records) {
        float A[16][16], B[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Record& from = *static_cast<Record*>(records[lane]);
            const int g = lane / 4, t = lane % 4;
            for (int q = 0; q < 4; q++) {
                float* at = &A[g + q % 2 * 8][2 * t + q / 2 * 8];
                at[0] = cuemu::low(from.a[q]), at[1] = cuemu::high(from.a[q]);
            }
            for (int q = 0; q < 2; q++) {
                B[2 * t + 8 * q][g] = cuemu::low(from.b[q]), B[2 * t + 8 * q + 1][g] = cuemu::high(from.b[q]);
            }
        }
        for (int row = 0; row < 16; row++) {
            float sums[8] = {};
            for (int k = 0; k < 16; k++)
                for (int column = 0; column < 8; column++) sums[column] += A[row][k] * B[k][column];
            for (int column = 0; column < 8; column++)
                static_cast<Record*>(records[row % 8 * 4 + column / 2])->c[row / 8 * 2 + column % 2] += sums[column];
        }
    });
}

// Four (8, 8) matrices, transposed.
static void load_transposed_4(unsigned (&r)[4], const void* row)
{
    struct Record { unsigned* r; const void* row; } record = {r, row};
    if (!cuemu::divides(row, 16)) cuemu::fail("a matrix row that is not divided by 16");
    cuemu::in_warp(&record, [](void** records) {
        for (int lane = 0; lane < 32; lane++)
            for (int q = 0; q < 4; q++) {
                const auto half = [&](int i) {
                    const void* row = static_cast<Record*>(records[8 * q + lane % 4 * 2 + i])->row;
                    return unsigned(static_cast<const unsigned short*>(row)[lane / 4]);
                };
                static_cast<Record*>(records[lane])->r[q] = half(0) | half(1) << 16;
            }
    });
}

static unsigned transpose(unsigned halves)
{
    struct Record { unsigned given, turned; } record = {halves, 0};
    cuemu::in_warp(&record, [](void** records) {
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4;
            const auto half = [&](int row) {  // column g of a row
                return static_cast<Record*>(records[4 * row + g / 2])->given >> g % 2 * 16 & 0xffff;
            };
            static_cast<Record*>(records[lane])->turned = half(2 * t) | half(2 * t + 1) << 16;
        }
    });
    return record.turned;
}

static unsigned pick_bytes(unsigned a, unsigned b, unsigned selector)
{
    const std::uint64_t bytes = std::uint64_t(b) << 32 | a;
    unsigned picked = 0;
    for (int i = 0; i < 4; i++) picked |= unsigned(bytes >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return picked;
}

template <class T> T read_anew(const T* at) { return *at; }

static void wait_until(const int* counter, int number)
{
    if (*counter != number) cuemu::fail("waits for what no kernel before it has done");
}

// Kernels run one after another here.
static void wait_for_last_kernel() {}
static void start_next_kernel() {}

static unsigned pack_halves(float low, float high) { return cvt_f16_f32(low) | cvt_f16_f32(high) << 16; }

static unsigned subtract_halves(unsigned a, unsigned b)
{
    return pack_halves(cuemu::low(a) - cuemu::low(b), cuemu::high(a) - cuemu::high(b));
}
