/* pairs N: N times malloc and free of one small block. The cost of an event, with nothing else in between. */
#include <stdlib.h>

int main(int argc, char **argv) {
  long pairs = argc > 1 ? atol(argv[1]) : 2000000;
  for (long i = 0; i < pairs; i++) {
    volatile char *block = malloc(24 + i % 200);
    if (!block) return 1;
    block[0] = 1;
    free((void *)block);
  }
  return 0;
}
