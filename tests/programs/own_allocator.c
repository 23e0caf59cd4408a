/* The executable brings its own malloc, calloc, realloc and free, and calls the allocation functions that it does not have.
   libc's reallocarray then calls the program's realloc; anything that reaches libc's own heap by another way frees a block
   that is not libc's and aborts. Ends with 0. Events: the calls of the functions that it left to libc. */
#include "oracle.h"

static char pool[1 << 20] __attribute__((aligned(16)));
static size_t used;

void *malloc(size_t size) {
  size_t *block = (size_t *)(pool + used);
  used += (size + 31) / 16 * 16;
  if (used > sizeof pool) return NULL;
  *block = size;
  return (char *)block + 16;
}

void free(void *block) {
  if (block && ((char *)block < pool || (char *)block >= pool + sizeof pool)) _exit(9); /* not ours */
}

void *calloc(size_t count, size_t size) { return malloc(count * size); }

void *realloc(void *old, size_t size) {
  void *block = malloc(size);
  if (old && block) memcpy(block, old, *(size_t *)((char *)old - 16));
  return block;
}

int main(void) {
  oracle_open();
  char *text = malloc(101);
  strcpy(text, "kept");
  text = told_reallocarray(text, 3, 1009);
  if (strcmp(text, "kept")) return 3;
  free(text);
  for (int i = 0; i < 10; i++) {
    char *block = reallocarray(NULL, 7, 103);
    if (block < pool || block >= pool + sizeof pool) return 4; /* reallocarray must end in our realloc */
    free(block);
  }
  void *aligned = told_aligned_alloc(64, 20107); /* libc's own: never freed with our free */
  void *paged = told_valloc(20131);
  void *mapping = told_mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  told_munmap(mapping, 8192);
  return !aligned || !paged;
}
