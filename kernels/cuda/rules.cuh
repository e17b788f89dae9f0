// The optimizers' rules for one parameter, those of fastmlp/optimizers.py. Compiled with -DREAL=float or -DREAL=double.
//
// w (P,) parameters, s (S, P) state, g the gradient of parameter i, h the numbers of the step.
#pragma once

struct Step {
    REAL rate;           // the learning rate; Adam's bias correction is folded in
    REAL l2;             // factor of the parameter in its gradient; 0 for biases
    REAL shrink;         // AdamW: learning rate times weight decay; 0 for biases
    REAL beta, rest;     // decay of the mean of gradients; 1 - beta
    REAL beta2, rest2;   // Adam: decay of the mean of squares; 1 - beta2
    REAL epsilon;        // Adam: keeps the division finite
};

namespace rules {

// w -= rate g
__device__ inline void sgd(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    w[i] -= h.rate * (g + h.l2 * w[i]);
}

// v = beta v + (1 - beta) g; w -= rate v
__device__ inline void momentum(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    s[i] = h.beta * s[i] + h.rest * (g + h.l2 * w[i]);
    w[i] -= h.rate * s[i];
}

// v = beta v + (1 - beta) g; w -= rate (beta v + (1 - beta) g)
__device__ inline void nesterov(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    const REAL d = g + h.l2 * w[i];
    s[i] = h.beta * s[i] + h.rest * d;
    w[i] -= h.rate * (h.beta * s[i] + h.rest * d);
}

// m = beta m + (1 - beta) g; q = beta2 q + (1 - beta2) g^2; returns rate m / (sqrt(q) + epsilon)
__device__ inline REAL adam_step(REAL d, REAL* s, long long P, long long i, const Step& h)
{
    s[i] = h.beta * s[i] + h.rest * d;
    s[P + i] = h.beta2 * s[P + i] + h.rest2 * (d * d);
    return h.rate * s[i] / (sqrt(s[P + i]) + h.epsilon);
}

// w -= adam_step
__device__ inline void adam(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    w[i] -= adam_step(g + h.l2 * w[i], s, P, i, h);
}

// w -= shrink w + adam_step
__device__ inline void adamw(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    w[i] -= h.shrink * w[i] + adam_step(g + h.l2 * w[i], s, P, i, h);
}

// v = beta v - rate g; w += v
__device__ inline void heavy_ball(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    s[i] = h.beta * s[i] - h.rate * (g + h.l2 * w[i]);
    w[i] += s[i];
}

// v = beta v - rate g; w += beta v - rate g
__device__ inline void heavy_ball_nesterov(REAL* w, REAL g, REAL* s, long long P, long long i, const Step& h)
{
    const REAL d = h.rate * (g + h.l2 * w[i]);
    s[i] = h.beta * s[i] - d;
    w[i] += h.beta * s[i] - d;
}

}  // namespace rules
