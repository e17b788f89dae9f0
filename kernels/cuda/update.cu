// The optimizers' rules, one thread a parameter. Compiled with -DREAL=float or -DREAL=double.
//
// P parameters. The numbers are those of `fastmlp.optimizers.Step`, in its order, and all rules take all of them.

#define PARAMETER (blockIdx.x * (long long)blockDim.x + threadIdx.x)

// w -= rate g
extern "C" __global__ void sgd(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (0, P)
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    w[i] -= rate * d;
}

// v = beta v + (1 - beta) g; w -= rate v
extern "C" __global__ void momentum(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL v = beta * s[i] + rest * d;
    s[i] = v;
    w[i] -= rate * v;
}

// v = beta v + (1 - beta) g; w -= rate (beta v + (1 - beta) g)
extern "C" __global__ void nesterov(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL v = beta * s[i] + rest * d;
    s[i] = v;
    w[i] -= rate * (beta * v + rest * d);
}

// m = beta m + (1 - beta) g; q = beta2 q + (1 - beta2) g^2; w -= rate m / (sqrt(q) + epsilon)
extern "C" __global__ void adam(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (2, P)  m, q
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL m = beta * s[i] + rest * d;
    const REAL q = beta2 * s[P + i] + rest2 * (d * d);
    s[i] = m;
    s[P + i] = q;
    w[i] -= rate * m / (sqrt(q) + epsilon);
}

// as adam, after w -= shrink w
extern "C" __global__ void adamw(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (2, P)  m, q
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL m = beta * s[i] + rest * d;
    const REAL q = beta2 * s[P + i] + rest2 * (d * d);
    s[i] = m;
    s[P + i] = q;
    w[i] -= shrink * w[i] + rate * m / (sqrt(q) + epsilon);
}

// v = beta v - rate g; w += v
extern "C" __global__ void heavy_ball(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL v = beta * s[i] - rate * d;
    s[i] = v;
    w[i] += v;
}

// v = beta v - rate g; w += beta v - rate g
extern "C" __global__ void heavy_ball_nesterov(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL l2, REAL shrink, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL d = g[i] + l2 * w[i];
    const REAL v = beta * s[i] - rate * d;
    s[i] = v;
    w[i] += beta * v - rate * d;
}
