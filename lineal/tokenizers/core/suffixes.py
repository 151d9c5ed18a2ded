# cython: boundscheck=False, wraparound=False, cdivision=True
"""Substrings that occur again, from a sorted array of suffixes; the plain form is `seeds` in `unigram_train`.

A text here is words one after another, a zero behind each; a suffix goes up to its word's end, and is compared up to
`limit` places.
"""

from __future__ import annotations

import cython


def sort(
    codes: cython.const[cython.int][::1],
    order: cython.int[::1],
    limit: cython.Py_ssize_t,
    stack: cython.longlong[::1],
) -> None:
    """Sort places of a text by what stands there: quicksort in three parts, a place further for the equal part.

    stack: room for what is still to sort, 3 numbers for each level: 3 * 64 * (limit + 2) are enough, since the
    largest part is put there first. (J. Bentley, R. Sedgewick 1997, "Fast algorithms for sorting and searching strings".)
    """
    height: cython.Py_ssize_t = 1
    low: cython.Py_ssize_t
    high: cython.Py_ssize_t
    depth: cython.Py_ssize_t
    less: cython.Py_ssize_t
    more: cython.Py_ssize_t
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    a: cython.int
    b: cython.int
    c: cython.int
    pivot: cython.int
    place: cython.int
    with cython.nogil:
        stack[0] = 0
        stack[1] = len(order)
        stack[2] = 0
        while height > 0:
            height -= 1
            low = stack[3 * height]
            high = stack[3 * height + 1]
            depth = stack[3 * height + 2]
            if high - low < 2 or depth >= limit:
                continue
            if high - low < 12:
                for i in range(low + 1, high):
                    place = order[i]
                    j = i
                    while j > low and before(codes, place, order[j - 1], depth, limit):
                        order[j] = order[j - 1]
                        j -= 1
                    order[j] = place
                continue
            a = codes[order[low] + depth]
            b = codes[order[(low + high) // 2] + depth]
            c = codes[order[high - 1] + depth]
            pivot = max(min(a, b), min(max(a, b), c))
            less = low
            more = high
            i = low
            while i < more:
                place = order[i]
                if codes[place + depth] < pivot:
                    order[i] = order[less]
                    order[less] = place
                    less += 1
                    i += 1
                elif codes[place + depth] > pivot:
                    more -= 1
                    order[i] = order[more]
                    order[more] = place
                else:
                    i += 1
            # The larger of the outer parts first, so that the stack stays low.
            if less - low > high - more:
                height = push(stack, height, low, less, depth)
                height = push(stack, height, more, high, depth)
            else:
                height = push(stack, height, more, high, depth)
                height = push(stack, height, low, less, depth)
            if pivot != 0:
                height = push(stack, height, less, more, depth + 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def push(
    stack: cython.longlong[::1],
    height: cython.Py_ssize_t,
    low: cython.Py_ssize_t,
    high: cython.Py_ssize_t,
    depth: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Put a part on the stack, unless it is sorted; returns the stack's height."""
    if high - low < 2:
        return height
    stack[3 * height] = low
    stack[3 * height + 1] = high
    stack[3 * height + 2] = depth
    return height + 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def before(
    codes: cython.const[cython.int][::1],
    one: cython.Py_ssize_t,
    two: cython.Py_ssize_t,
    depth: cython.Py_ssize_t,
    limit: cython.Py_ssize_t,
) -> cython.bint:
    """Whether one suffix stands before another that is equal up to `depth`."""
    while depth < limit and codes[one + depth] == codes[two + depth] and codes[one + depth] != 0:
        depth += 1
    return depth < limit and codes[one + depth] < codes[two + depth]


def common(
    codes: cython.const[cython.int][::1],
    order: cython.const[cython.int][::1],
    shared: cython.int[::1],
    limit: cython.Py_ssize_t,
) -> None:
    """shared[i]: how many places suffix i has in common with the one before it, up to `limit`; the first and last have 0."""
    i: cython.Py_ssize_t
    depth: cython.int
    one: cython.Py_ssize_t
    two: cython.Py_ssize_t
    with cython.nogil:
        shared[0] = 0
        shared[len(order)] = 0
        for i in range(1, len(order)):
            one = order[i - 1]
            two = order[i]
            depth = 0
            while depth < limit and codes[one + depth] == codes[two + depth] and codes[one + depth] != 0:
                depth += 1
            shared[i] = depth


def repeats(
    order: cython.const[cython.int][::1],
    shared: cython.const[cython.int][::1],
    weights: cython.const[cython.longlong][::1],
    codes: cython.const[cython.int][::1],
    limit: cython.Py_ssize_t,
    out: cython.longlong[::1],
) -> cython.Py_ssize_t:
    """Substrings of 2 to limit - 1 places that occur twice or more and less often when any place is added; how many.

    weights: sums, so that the suffixes i to j - 1 occur weights[j] - weights[i] times. out: for each substring the first suffix that begins with it, the one after the last, its length
    and how often it occurs; there are at most twice as many as suffixes.
    """
    size: cython.Py_ssize_t = len(order)
    count: cython.Py_ssize_t = 0
    height: cython.Py_ssize_t = 0
    i: cython.Py_ssize_t
    left: cython.Py_ssize_t
    depth: cython.int
    whole: cython.int
    next_depth: cython.int
    # What is open: its length and where it began; lengths grow, so there are at most `limit`.
    depths: cython.int[1024]
    lefts: cython.longlong[1024]
    if not cython.compiled:
        depths, lefts = [0] * 1024, [0] * 1024
    with cython.nogil:
        for i in range(size):
            next_depth = shared[i + 1]
            # All of what is left of a word, where no suffix beside it has as much.
            whole = max(shared[i], next_depth)
            while whole < limit and codes[order[i] + whole] != 0:
                whole += 1
            if (
                1 < whole < limit
                and whole > shared[i]
                and whole > next_depth
                and weights[i + 1] - weights[i] > 1
            ):
                out[4 * count] = i
                out[4 * count + 1] = i + 1
                out[4 * count + 2] = whole
                out[4 * count + 3] = weights[i + 1] - weights[i]
                count += 1
            left = i
            while height > 0 and depths[height - 1] > next_depth:
                height -= 1
                left = lefts[height]
                depth = depths[height]
                if 1 < depth < limit and weights[i + 1] - weights[left] > 1:
                    out[4 * count] = left
                    out[4 * count + 1] = i + 1
                    out[4 * count + 2] = depth
                    out[4 * count + 3] = weights[i + 1] - weights[left]
                    count += 1
            if next_depth > 0 and (height == 0 or depths[height - 1] < next_depth):
                depths[height] = next_depth
                lefts[height] = left
                height += 1
    return count


def edges(
    order: cython.const[cython.int][::1],
    found: cython.const[cython.longlong][::1],
    pieces: cython.const[cython.int][::1],
    first: cython.int[::1],
    lengths: cython.uchar[::1],
    tokens: cython.int[::1],
) -> None:
    """Lay out, by the place where they begin, the substrings found: those of place p are numbers first[p] to first[p + 1].

    found: as `repeats` gives them. pieces: the token of each, -1 to leave it out. first: comes in as how many there are
    in all places before p (one more than places); each substring of a place takes the next number. It goes out as the
    end of each place.
    """
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    place: cython.Py_ssize_t
    with cython.nogil:
        for k in range(len(pieces)):
            if pieces[k] < 0:
                continue
            for i in range(found[4 * k], found[4 * k + 1]):
                place = order[i]
                lengths[first[place]] = cython.cast(cython.uchar, found[4 * k + 2])
                tokens[first[place]] = pieces[k]
                first[place] += 1


def tally(
    order: cython.const[cython.int][::1],
    found: cython.const[cython.longlong][::1],
    pieces: cython.const[cython.int][::1],
    counts: cython.int[::1],
) -> None:
    """Add to counts[p] how many of the substrings found begin at each place p."""
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    with cython.nogil:
        for k in range(len(pieces)):
            if pieces[k] >= 0:
                for i in range(found[4 * k], found[4 * k + 1]):
                    counts[order[i]] += 1
