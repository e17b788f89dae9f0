// The optimizers' rules, one thread a parameter. Compiled with -DREAL=float or -DREAL=double.
//
// P parameters. rate: the learning rate; beta, rest = 1 - beta: decay of the mean of gradients; beta2, rest2: of the
// mean of squares.

#define PARAMETER (blockIdx.x * (long long)blockDim.x + threadIdx.x)

// w -= rate g
extern "C" __global__ void sgd(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (0, P)
    long long P, REAL rate)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    w[i] -= rate * g[i];
}

// v = beta v + (1 - beta) g; w -= rate v
extern "C" __global__ void momentum(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL beta, REAL rest)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL v = beta * s[i] + rest * g[i];
    s[i] = v;
    w[i] -= rate * v;
}

// v = beta v + (1 - beta) g; w -= rate (beta v + (1 - beta) g)
extern "C" __global__ void nesterov(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (1, P)  v
    long long P, REAL rate, REAL beta, REAL rest)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL v = beta * s[i] + rest * g[i];
    s[i] = v;
    w[i] -= rate * (beta * v + rest * g[i]);
}

// m = beta m + (1 - beta) g; q = beta2 q + (1 - beta2) g^2; w -= rate m / (sqrt(q) + epsilon)
extern "C" __global__ void adam(
    REAL* w,        // (P,)
    const REAL* g,  // (P,)
    REAL* s,        // (2, P)  m, q
    long long P, REAL rate, REAL beta, REAL rest, REAL beta2, REAL rest2, REAL epsilon)
{
    const long long i = PARAMETER;
    if (i >= P) return;
    const REAL m = beta * s[i] + rest * g[i];
    const REAL q = beta2 * s[P + i] + rest2 * (g[i] * g[i]);
    s[i] = m;
    s[P + i] = q;
    w[i] -= rate * m / (sqrt(q) + epsilon);
}
