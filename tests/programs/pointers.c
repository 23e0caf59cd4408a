/* Prints what malloc and its kin return, relative to the start of the heap where they lie in the brk heap. Equal with and
   without memspy when randomisation is off and the environment is of equal length. */
#include "oracle.h"

#include <pthread.h>

static void *thread(void *argument) {
  char *first = malloc(100);
  unsigned long arena = (unsigned long)first & ~0x3fffffful; /* thread arenas are aligned to 64 MiB */
  for (int i = 0; i < 200; i++) {
    char *block = malloc(1 + i * 37 % 5000);
    printf("arena +%lx\n", (unsigned long)block - arena);
    if (i % 3 == 0) free(block);
  }
  free(first);
  return argument;
}

int main(void) {
  char *blocks[500] = {0};
  for (int i = 0; i < 5000; i++) {
    int slot = i * 7919 % 500;
    size_t size = 1 + i * 31 % 3000;
    if (i % 5 == 0) blocks[slot] = realloc(blocks[slot], size);
    else if (i % 11 == 0) blocks[slot] = (free(blocks[slot]), aligned_alloc(64, size));
    else blocks[slot] = (free(blocks[slot]), malloc(size));
    printf("heap %p\n", (void *)blocks[slot]);
  }
  pthread_t id;
  if (pthread_create(&id, NULL, thread, NULL) || pthread_join(id, NULL)) return 1;
  return 0;
}
