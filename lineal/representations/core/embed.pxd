# What Python can't say: ask for memory ahead of its use, where the compiler knows how.
cdef extern from *:
    """
    #if defined(__GNUC__)
    #define lineal_prefetch(address) __builtin_prefetch((address), 1, 3)
    #else
    #define lineal_prefetch(address) ((void)0)
    #endif
    """
    void prefetch "lineal_prefetch" (const void *address) noexcept nogil
