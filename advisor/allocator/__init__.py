"""torch's CUDA caching allocator in pure Python: what a stream of allocations and frees makes a card reserve."""
