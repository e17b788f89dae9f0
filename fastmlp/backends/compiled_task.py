"""What the threads of a team are handed: the network and the rows of their task, and the room to work in."""

from __future__ import annotations

from typing import Any, NamedTuple

DENSE, MARKED, SPARSE = "dense", "marked", "sparse"  # how products read the rows of the input


class Net(NamedTuple):
    """The layers of a network.

    Weights seen as uint32, the same bits, ask for products of operands rounded to bfloat16; see `kernels.cpu.product`.
    """

    W: Any  # W[l] (fan_in, fan_out)
    b: Any  # b[l] (fan_out,)
    kinds: Any  # of each layer's activation: 0 the identity, 1 ReLU, else the address of its C function
    loss: Any  # address of the loss's C function
    numbers: Any  # (3,) or (O,), see `fastmlp.network.Network.loss_numbers`


class Buffers(NamedTuple):
    """Rows on their way through the network.

    In phases, x, `marked` and what belongs to the first layer are a thread's own: the numbers of the units it has stand
    at the beginning of the room.
    """

    x: Any  # (n, I), of uint16 where products round to bfloat16
    marked: Any  # x with the places of its non-zeros; None: no zeros are skipped; room for the lists of CSR rows
    z: Any  # z[l] (n, H_l); a[l] itself where the activation needs no z beside it
    a: Any  # a[l] (n, H_l)
    h: Any  # h[l] (n, H_l); a[l] itself where nothing is left out
    dz: Any  # dz[l] (n, H_l)


class Task(NamedTuple):
    """What all threads of a team share."""

    team: Any  # address of the team's array
    threads: Any
    net: Any  # Net
    X: Any  # (M, I), an array or `csr.CSR`
    y: Any  # (M,) int32, or (M, O)
    weight: Any  # (N,) in the order of visits, or None
    order: Any  # (N,) int64, the rows to use, or None: the first N
    N: Any
    dropout: Any  # share of the hidden units to leave out
    key: Any  # uint64, of the first step's dropout
    totals: Any  # (threads, 3) float64: sum of losses, right answers, penalties


class Panel(NamedTuple):
    """Units of the first hidden layer that are one thread's own while it takes small steps, and their weights.

    They lie apart from the others': a core that fetches ahead in one row of W[0] would take the lines of its neighbour.
    """

    first: Any
    last: Any
    moves: Any  # Moves of their columns of W[0] and b[0], their rows of W[1], and a copy of b[1], in this order
