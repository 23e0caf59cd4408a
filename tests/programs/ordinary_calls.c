/* Allocation as programs usually do it, 20,000 steps of malloc, calloc, realloc, posix_memalign and free at random, some of
   the blocks never freed. Nothing odd, so that valgrind counts what memspy counts. Events: calls, blocks and bytes of valgrind's
   "total heap usage". */
#include <stdint.h>
#include <stdlib.h>

enum { SLOTS = 300, STEPS = 20000 };

int main(void) {
  void *slots[SLOTS] = {0};
  uint64_t state = 88172645463325252ull;
  for (int i = 0; i < STEPS; i++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    void **slot = &slots[state % SLOTS];
    size_t size = 1 + (state >> 20) % 3000;
    switch (state >> 50 & 3) {
      case 0:
        free(*slot);
        *slot = NULL;
        break;
      case 1: *slot = realloc(*slot, size); break;
      case 2:
        free(*slot);
        *slot = calloc(3, size);
        break;
      default:
        free(*slot);
        if (size % 5 == 0 && posix_memalign(slot, 64, size)) return 1;
        if (size % 5) *slot = malloc(size);
    }
  }
  return 0;
}
