# cython: boundscheck=False, wraparound=False, cdivision=True
"""The steps of training a Unigram model, on a lattice laid out once; their plain forms are in `unigram_train`.

The lattice: text places 0..n, words as start and end among them, and for each place the tokens that begin there, numbers
first[p] to first[p + 1] of `lengths` and `tokens`; these three come as one tuple. A token whose probability is 0 counts as gone.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.libc.math import log
else:
    from math import log


def expect(
    words: cython.const[cython.int][::1],
    counts: cython.const[cython.longlong][::1],
    lattice: tuple,
    chances: cython.const[cython.double][::1],
    expected: cython.double[::1],
    work: cython.double[::1],
    levels: cython.int[::1],
) -> cython.double:
    """Add to `expected` how often each token occurs over all cuts, each weighed by its probability; returns the likelihood.

    words: start and end of each. chances: the probability of each token. Forward: alpha[j] = sum over tokens i..j of
    alpha[i] chance; backward the same from the end; a token's share is alpha[i] chance beta[j] / alpha[end].
    Numbers that become small are made larger by 1e100, and `levels` keeps how often. work, levels: room for two numbers
    for each place of the longest word, and two more.
    """
    first: cython.const[cython.int][::1] = lattice[0]
    lengths: cython.const[cython.uchar][::1] = lattice[1]
    tokens: cython.const[cython.int][::1] = lattice[2]
    small: cython.double = 1e-100
    large: cython.double = 1e100
    total: cython.double = 0.0
    w: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    e: cython.Py_ssize_t
    k: cython.Py_ssize_t
    start: cython.Py_ssize_t
    size: cython.Py_ssize_t
    half: cython.Py_ssize_t = len(work) // 2
    level: cython.int
    top: cython.int
    steps: cython.int
    whole: cython.double
    share: cython.double
    here: cython.double
    count: cython.double
    with cython.nogil:
        for w in range(len(counts)):
            start = words[2 * w]
            size = words[2 * w + 1] - start
            count = cython.cast(cython.double, counts[w])
            level = 0
            for i in range(size + 1):
                work[i] = 0.0
            work[0] = 1.0
            for i in range(size):
                if work[i] < small and work[i] > 0:
                    for k in range(i, min(size, i + 255) + 1):
                        work[k] *= large
                    level += 1
                levels[i] = level
                here = work[i]
                for e in range(first[start + i], first[start + i + 1]):
                    work[i + lengths[e]] += here * chances[tokens[e]]
            whole = work[size]
            if not whole > 0:
                continue
            top = level
            total += count * (log(whole) - level * 230.25850929940458)
            level = 0
            work[half + size] = 1.0
            levels[half + size] = 0
            for i in range(size - 1, -1, -1):
                here = 0.0
                for e in range(first[start + i], first[start + i + 1]):
                    j = i + lengths[e]
                    share = work[half + j] * chances[tokens[e]]
                    for _ in range(level - levels[half + j]):
                        share *= large
                    here += share
                    share *= work[i] / whole
                    steps = top - levels[i] - level
                    while steps > 0:
                        share *= large
                        steps -= 1
                    while steps < 0 and share > 0:
                        share *= small
                        steps += 1
                    expected[tokens[e]] += count * share
                if here < small and here > 0:
                    here *= large
                    level += 1
                work[half + i] = here
                levels[half + i] = level
    return total


def best(
    words: cython.const[cython.int][::1],
    counts: cython.const[cython.longlong][::1],
    lattice: tuple,
    scores: cython.const[cython.double][::1],
    found: cython.longlong[::1],
    work: cython.double[::1],
    back: cython.int[::1],
) -> cython.double:
    """Add to `found` how often each token occurs in the best cuts of all words; returns their score.

    scores: log-probabilities. work, back: room for a number for each place of the longest word, and one more; `back` for two.
    """
    first: cython.const[cython.int][::1] = lattice[0]
    lengths: cython.const[cython.uchar][::1] = lattice[1]
    tokens: cython.const[cython.int][::1] = lattice[2]
    half: cython.Py_ssize_t = len(back) // 2
    never: cython.double = -1e300
    total: cython.double = 0.0
    w: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    e: cython.Py_ssize_t
    start: cython.Py_ssize_t
    size: cython.Py_ssize_t
    score: cython.double
    with cython.nogil:
        for w in range(len(counts)):
            start = words[2 * w]
            size = words[2 * w + 1] - start
            for i in range(1, size + 1):
                work[i] = never
            work[0] = 0.0
            for i in range(size):
                for e in range(first[start + i], first[start + i + 1]):
                    j = i + lengths[e]
                    score = work[i] + scores[tokens[e]]
                    if score > work[j]:
                        work[j] = score
                        back[j] = cython.cast(cython.int, i)
                        back[half + j] = tokens[e]
            total += work[size] * counts[w]
            i = size
            while i > 0:
                found[back[half + i]] += counts[w]
                i = back[i]
    return total


def losses(
    places: cython.const[cython.int][::1],
    sizes: cython.const[cython.int][::1],
    lattice: tuple,
    scores: cython.const[cython.double][::1],
    found: cython.const[cython.longlong][::1],
    everything: cython.double,
    out: cython.double[::1],
) -> None:
    """What the corpus loses in log-likelihood, about, when each token goes and its best other cut takes its place.

    places, sizes: where each token stands in the text, and its length. found: how often it occurs in the best cuts, in
    all `everything`. out: the loss; -1 where the token is not used, or another cut of it is better anyway; 1e300 where
    there is no other.
    """
    first: cython.const[cython.int][::1] = lattice[0]
    lengths: cython.const[cython.uchar][::1] = lattice[1]
    tokens: cython.const[cython.int][::1] = lattice[2]
    never: cython.double = -1e300
    work: cython.double[260]
    back: cython.int[260]
    taken: cython.int[260]
    t: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    e: cython.Py_ssize_t
    size: cython.Py_ssize_t
    steps: cython.int
    score: cython.double
    other: cython.double
    if not cython.compiled:
        work, back, taken = [0.0] * 260, [0] * 260, [0] * 260
    with cython.nogil:
        for t in range(len(sizes)):
            size = sizes[t]
            out[t] = -1
            if size < 2:
                out[t] = 1e300
                continue
            for i in range(1, size + 1):
                work[i] = never
            work[0] = 0.0
            for i in range(size):
                for e in range(first[places[t] + i], first[places[t] + i + 1]):
                    j = i + lengths[e]
                    if j <= size and tokens[e] != t:
                        score = work[i] + scores[tokens[e]]
                        if score > work[j]:
                            work[j] = score
                            back[j] = cython.cast(cython.int, i)
                            taken[j] = tokens[e]
            if work[size] < -1e290:
                out[t] = 1e300
                continue
            if found[t] == 0 or work[size] > scores[t]:
                continue
            steps = 0
            i = size
            while i > 0:
                i = back[i]
                steps += 1
            other = -steps * log(everything + cython.cast(cython.double, found[t]) * (steps - 1))
            i = size
            while i > 0:
                other += log(cython.cast(cython.double, found[taken[i]] + found[t]))
                i = back[i]
            out[t] = found[t] * (log(cython.cast(cython.double, found[t])) - log(everything) - other)


def digamma(values: cython.double[::1]) -> None:
    """Replace each number by the derivative of log gamma there: a recurrence up to 7, then its asymptotic series."""
    i: cython.Py_ssize_t
    x: cython.double
    y: cython.double
    result: cython.double
    with cython.nogil:
        for i in range(len(values)):
            x = values[i]
            result = 0.0
            while x < 7:
                result -= 1 / x
                x += 1
            y = 1 / ((x - 0.5) * (x - 0.5))
            result += log(x - 0.5) + y * (1.0 / 24 - y * (7.0 / 960 - y * (31.0 / 8064 - y * 127.0 / 30720)))
            values[i] = result


def compact(
    first: cython.int[::1],
    lengths: cython.uchar[::1],
    tokens: cython.int[::1],
    names: cython.const[cython.int][::1],
) -> cython.Py_ssize_t:
    """Give each token its new number and take out those whose number is -1; returns how many entries are left."""
    places: cython.Py_ssize_t = len(first) - 1
    p: cython.Py_ssize_t
    e: cython.Py_ssize_t
    to: cython.int = 0
    at: cython.int = 0
    with cython.nogil:
        for p in range(places):
            e = at
            at = first[p + 1]
            first[p] = to
            while e < at:
                if names[tokens[e]] >= 0:
                    lengths[to] = lengths[e]
                    tokens[to] = names[tokens[e]]
                    to += 1
                e += 1
        first[places] = to
    return to
