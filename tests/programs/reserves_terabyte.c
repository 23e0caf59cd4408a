/* What runtimes of garbage-collected languages do: a terabyte of addresses is reserved, 64 pieces of it are made usable and
   touched, every other gigabyte is given back, then, by one call over the holes, all the rest. In between come 8192 call
   stacks that nobody has seen before. Told: each call. Ends with 0. */
#include "oracle.h"

__attribute__((noinline)) static void grow(int depth);
__attribute__((noinline)) static void left(int depth) { grow(depth - 1); }
__attribute__((noinline)) static void right(int depth) { grow(depth - 1); }

static void grow(int depth) {
  if (depth == 0) {
    free(malloc(20001));
    return;
  }
  left(depth);
  right(depth);
}

int main(void) {
  const size_t giga = 1ul << 30, all = 1024 * giga;
  oracle_open();
  char *base = told_mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return 1;
  for (int i = 0; i < 64; i++) {
    char *piece = base + i * 16 * giga;
    if (told_mprotect(piece, 8192, PROT_READ | PROT_WRITE)) return 2;
    memset(piece, i, 8192);
    free(malloc(20001));
  }
  for (int i = 1; i < 1024; i += 2)
    if (told_munmap(base + i * giga, giga)) return 3;
  grow(13);
  for (int i = 0; i < 64; i++)
    if (base[i * 16 * giga] != i) return 4;
  return told_munmap(base, all) ? 5 : 0;
}
