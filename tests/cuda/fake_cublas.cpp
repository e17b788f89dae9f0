// A stand-in for cuBLAS on the CPU, behind cuemu.h: the five functions that fastmlp.kernels.cuda.products calls, with
// their C interface. Operands are rounded as the precision says, sums are in float.
//
// While a stream is captured, the fake CuPy sets `recorder`; a product is then kept, and run by its number later.
#include <functional>

extern "C" {

static std::vector<std::function<void()>> kept;
static void (*recorder)(int);
static long long handles;

struct Handle { void* stream; void* workspace; std::size_t size; };
enum { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14, FAST_TF32 = 77 };

static double load(const void* p, int kind, std::size_t i, bool tf32)
{
    float v;
    if (kind == R_64F) return ((const double*)p)[i];
    if (kind == R_16F) return cvt_f32_f16(((const unsigned short*)p)[i]);
    if (kind == R_16BF) return __uint_as_float((unsigned)((const unsigned short*)p)[i] << 16);
    v = ((const float*)p)[i];
    if (tf32 && std::isfinite(v)) v = __uint_as_float((__float_as_uint(v) + 0xfff + (__float_as_uint(v) >> 13 & 1)) & 0xffffe000);
    return v;
}

static void store(void* p, int kind, std::size_t i, double v)
{
    if (kind == R_64F) ((double*)p)[i] = v;
    else if (kind == R_32F) ((float*)p)[i] = float(v);
    else if (kind == R_16F) ((unsigned short*)p)[i] = cvt_f16_f32(float(v));
    else {
        const unsigned bits = __float_as_uint(float(v));
        ((unsigned short*)p)[i] = v != v ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
}

int cublasCreate_v2(Handle** handle) { *handle = new Handle{nullptr, nullptr, 0}; handles++; return 0; }
int cublasDestroy_v2(Handle* handle) { delete handle; handles--; return 0; }
int cublasSetStream_v2(Handle* handle, void* stream)
{
    *handle = Handle{stream, nullptr, 0};  // as documented: the workspace is the library's own again
    return 0;
}
int cublasSetWorkspace_v2(Handle* handle, void* workspace, std::size_t size)
{
    handle->workspace = workspace;
    handle->size = size;
    return 0;
}

int cublasGemmEx(Handle* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* A, int kind_a,
    int lda, const void* B, int kind_b, int ldb, const void* beta, void* C, int kind_c, int ldc, int compute, int)
{
    const bool exact = compute == 70;
    if (exact != (kind_a == R_64F) || kind_a != kind_b || (kind_c != kind_a && kind_c != R_32F)) return 15;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || m < 1 || n < 1 || k < 1) return 7;
    if (recorder && (!handle || !handle->stream || !handle->workspace)) return 14;  // it would allocate
    const double scale = exact ? *(const double*)alpha : *(const float*)alpha;  // host pointers are read at the call
    const double keep = exact ? *(const double*)beta : *(const float*)beta;
    auto run = [=] {
        std::vector<double> a((std::size_t)m * k), b((std::size_t)k * n);
        for (int i = 0; i < m; i++)
            for (int l = 0; l < k; l++)
                a[(std::size_t)i * k + l] = load(A, kind_a, ta ? l + (std::size_t)i * lda : i + (std::size_t)l * lda, compute == FAST_TF32);
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++)
                b[(std::size_t)j * k + l] = load(B, kind_b, tb ? j + (std::size_t)l * ldb : l + (std::size_t)j * ldb, compute == FAST_TF32);
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                const double *x = &a[(std::size_t)i * k], *y = &b[(std::size_t)j * k];
                double sum = 0;
                if (exact) for (int l = 0; l < k; l++) sum += x[l] * y[l];
                else { float s = 0; for (int l = 0; l < k; l++) s += float(x[l]) * float(y[l]); sum = s; }
                const std::size_t at = i + (std::size_t)j * ldc;
                store(C, kind_c, at, scale * sum + (keep ? keep * load(C, kind_c, at, false) : 0));
            }
    };
    if (recorder) {
        kept.push_back(run);
        recorder(int(kept.size()) - 1);
    } else run();
    return 0;
}

void fake_record(void (*to)(int)) { recorder = to; }
void fake_replay(int number) { kept[number](); }
long long fake_handles() { return handles; }

}
