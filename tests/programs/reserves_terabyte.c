/* What runtimes of garbage-collected languages do: a terabyte of addresses is reserved, 64 pieces of it are made usable and
   touched, every other gigabyte is given back, then all the rest. Told: each call. Ends with 0. */
#include "oracle.h"

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
  for (int i = 0; i < 64; i++)
    if (base[i * 16 * giga] != i) return 4;
  return told_munmap(base, all) ? 5 : 0;
}
